"""Measure the latency of models in turns, and their memory."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from torchlasso._core.timing import interleaved, wall_clock

ROUNDS = 15  # the minimum, however long they take
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # on Linux


@dataclass(frozen=True)
class Timing:
    """The seconds of a run: the median and the interquartile range."""

    median: float
    spread: float


@torch.inference_mode()
def latencies(models: Mapping[str, nn.Module], inputs: Mapping[str, Tensor], seconds: float) -> dict[str, Timing]:
    """Measure the latency of each model on its inputs, in evaluation mode.

    The models take turns, so that other work on the machine slows all of them alike.

    Args:
        models: the models, by name.
        inputs: the inputs of each model, by the same names.
        seconds: the time for all models together; each runs at least 15 times.
    """
    runs = {name: partial(model.eval(), inputs[name]) for name, model in models.items()}
    now = wall_clock(next(iter(inputs.values())).device)
    found = interleaved(runs, seconds, now, rounds=(ROUNDS, math.inf), slow=math.inf)
    return {name: _summary(times) for name, times in found.items()}


def _summary(times: list[float]) -> Timing:
    low, _, high = statistics.quantiles(times, n=4)
    return Timing(statistics.median(times), high - low)


def peak_memory(build: Callable[[], nn.Module], x: Tensor) -> int | None:
    """Return the peak of the bytes that a model takes while it is built and runs once, with its activations.

    On a CPU, this is the growth of the process, which only Linux reports; on other systems it is None.
    """
    if x.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        _run(build, x)
        return torch.cuda.max_memory_allocated(x.device) - before
    if not sys.platform.startswith("linux"):
        return None
    try:
        gc.collect(1)  # what the models before left; to look at all objects takes longer than the measurement
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system: reusing it would not count
        RESET.write_text("5")
        before = _kilobytes("VmRSS")
        _run(build, x)
        return 1024 * max(0, _kilobytes("VmHWM") - before)
    except (AttributeError, OSError):  # another C library, or /proc is not writable
        return None


@torch.inference_mode()
def _run(build: Callable[[], nn.Module], x: Tensor) -> None:
    build().eval()(x)


def _kilobytes(key: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
