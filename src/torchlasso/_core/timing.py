"""Timing of functions in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch

LEAST, MOST = 3, 25  # so many rounds
SLOW = 1.5  # a function that takes so many times as long as the quickest is not timed any further


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    seconds: float,
    now: Callable[[], float],
    *,
    rounds: tuple[float, float] = (LEAST, MOST),
    slow: float = SLOW,
) -> dict[str, list[float]]:
    """Return the seconds that each function takes, round by round.

    The first run of each warms up. Then there are rounds of all, each in another order, until the time is up.

    Args:
        functions: by name.
        seconds: about how long it may take altogether.
        now: the clock to time them by, such as :func:`clock`.
        rounds: how many there are at least and at most.
        slow: a function whose median is so many times that of the quickest drops out after the least rounds.
    """
    end = time.perf_counter() + seconds
    for function in functions.values():
        function()
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
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock to choose by: this thread's time if it does all the work, without that of other processes."""
    # elsewhere than under POSIX a thread's time is known to some hundredths of a second
    alone = device.type == "cpu" and torch.get_num_threads() == 1 and os.name == "posix"
    return time.thread_time if alone else wall_clock(device)


def wall_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of the time that passes, which waits for the device."""
    return time.perf_counter if device.type == "cpu" else lambda: _waited(device)


def _waited(device: torch.device) -> float:
    torch.accelerator.synchronize(device)
    return time.perf_counter()
