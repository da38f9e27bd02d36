"""Timing of functions in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

LEAST, MOST = 3, 25  # so many rounds
SLOW = 1.5  # what takes so many times as long as the quickest is not timed any further


def interleaved(
    functions: Mapping[str, Callable[[], Any]], seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """The seconds that each function takes, round by round.

    The first run of each warms up. Then there are rounds of all, each in another order, until the time is up: at least
    three and at most 25. What is much slower than the quickest, in the median of three rounds, drops out.

    Args:
        functions: by name.
        seconds: about how long it may take altogether.
        device: that the functions run on.
    """
    now = clock(device)
    end = time.perf_counter() + seconds
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    running = list(functions)
    for turn in range(MOST):
        if turn >= LEAST and (time.perf_counter() > end or len(running) == 1):
            break
        for name in running[turn % len(running) :] + running[: turn % len(running)]:
            start = now()
            functions[name]()
            times[name].append(now() - start)
        if turn + 1 >= LEAST:
            medians = {name: statistics.median(times[name]) for name in running}
            running = [name for name in running if medians[name] <= SLOW * min(medians.values())]
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """The time of this thread, where it does all the work, since that of other processes does not count; or time."""
    if device.type != "cpu":
        return lambda: _waited(device)
    # elsewhere than under POSIX a thread's time is known to some hundredths of a second
    return time.thread_time if torch.get_num_threads() == 1 and os.name == "posix" else time.perf_counter


def _waited(device: torch.device) -> float:
    torch.accelerator.synchronize(device)
    return time.perf_counter()
