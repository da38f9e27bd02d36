"""Timing of functions in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch

LEAST, MOST = 3, 25  # rounds
SLOW = 1.5  # functions slower than the fastest by this factor are not timed any further
SOON = 5  # times this factor, they are not timed again after the first round


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    seconds: float,
    now: Callable[[], float],
    *,
    rounds: tuple[float, float] = (LEAST, MOST),
    slow: float = SLOW,
) -> dict[str, list[float]]:
    """Return the seconds that each function takes, for each round.

    After a warm-up, all functions run in rounds, each in a different order, until the time is up.

    Args:
        functions: the functions, by name.
        seconds: the approximate time for everything.
        now: the clock, such as :func:`clock`.
        rounds: the least and the largest number of rounds.
        slow: a function drops out after the least rounds if its median is more than this factor above the fastest one,
            and after the first round if it takes ``SOON`` times as much.
    """
    end = time.perf_counter() + seconds
    warm_up: dict[str, float] = {}
    for name, function in functions.items():
        start = now()
        function()
        warm_up[name] = now() - start
    times: dict[str, list[float]] = {name: [] for name in functions}
    running, (least, most) = list(functions), rounds
    for turn in count():
        if turn >= most or (turn >= least and (time.perf_counter() > end or len(running) == 1)):
            break
        for name in running[turn % len(running) :] + running[: turn % len(running)]:
            start = now()
            functions[name]()
            times[name].append(now() - start)
        if turn + 1 >= least:
            medians = {name: statistics.median(times[name]) for name in running}
            running = [name for name in running if medians[name] <= slow * min(medians.values())]
        elif turn == 0:
            first = {name: min(warm_up[name], times[name][0]) for name in running}  # one may have been held up
            running = [name for name in running if first[name] <= SOON * slow * min(first.values())]
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock for comparisons: this thread's CPU time if it does all the work, else the time that passes."""
    # except under POSIX, a thread's time has a resolution of some hundredths of a second only
    alone = device.type == "cpu" and torch.get_num_threads() == 1 and os.name == "posix"
    return time.thread_time if alone else wall_clock(device)


def wall_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of the time that passes; it waits for the device."""
    return time.perf_counter if device.type == "cpu" else lambda: _waited(device)


def _waited(device: torch.device) -> float:
    torch.accelerator.synchronize(device)
    return time.perf_counter()
