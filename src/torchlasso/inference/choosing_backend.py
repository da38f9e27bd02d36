"""Choose the fastest way to run a whole model for a batch size, among those whose outputs are near enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from torchlasso._core.running import ExampleInputs, as_arguments, tensors_in
from torchlasso._core.text import first_line
from torchlasso._core.timing import interleaved, wall_clock
from torchlasso.export.exported import beyond_rounding
from torchlasso.inference.executions import DENSE
from torchlasso.inference.record import BackendTiming
from torchlasso.inference.whole import GAIN

ErrorFunction = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Limits:
    """The differences of outputs that are accepted from backends that round more than the model itself.

    Attributes:
        tolerance: the largest difference: of ``judge``, or else of the outputs, as a share of their size (root mean
            squares).
        judge: returns the error of a model on given rows.
    """

    tolerance: float = 0.0
    judge: ErrorFunction | None = None


@dataclass(frozen=True)
class Contender:
    """A module that may take the place of a model; without a module, ``why`` says why there is none."""

    module: nn.Module | None
    exact: bool = True
    why: str = ""


@torch.no_grad()
def choose_backend(
    original: nn.Module,
    candidates: Mapping[str, Contender],
    inputs: ExampleInputs,
    batch: int,
    limits: Limits,
    seconds: float,
) -> tuple[str, list[BackendTiming]]:
    """Return the name of the fastest candidate, or ``dense`` for the original, and the timings of all.

    Args:
        original: the model in evaluation mode.
        candidates: by name.
        inputs: of the batch size for which to choose.
        batch: this size.
        limits: of the differences of the outputs.
        seconds: the approximate time for timing.
    """
    args, kwargs = as_arguments(inputs)
    wanted = tensors_in(original(*args, **kwargs))
    differences: dict[str, float | None] = {DENSE: None}
    judged: dict[str, float] = {}
    whys: dict[str, str] = {}
    if limits.judge is not None:
        judged[DENSE] = limits.judge(original)
    runs = {DENSE: partial(original, *args, **kwargs)}
    for name, candidate in candidates.items():
        if candidate.module is None:
            whys[name] = candidate.why
            continue
        try:
            found = tensors_in(candidate.module(*args, **kwargs))
            differences[name] = _rms(found, wanted)
            if limits.judge is not None:
                judged[name] = limits.judge(candidate.module)
        except Exception as error:  # of any kind: compilers and runtimes have their own classes
            whys[name] = first_line(error)
            continue
        whys[name] = _too_far(candidate, found, wanted, differences[name], judged, name, limits)
        if not whys[name]:
            runs[name] = partial(candidate.module, *args, **kwargs)
    device = next((p.device for p in original.parameters()), torch.device("cpu"))
    times = interleaved(runs, seconds, wall_clock(device))  # runtimes have threads of their own
    gains = {name: _ratio(took, times[DENSE]) for name, took in times.items() if name != DENSE}
    faster = {name: ratio for name, (ratio, worse) in gains.items() if ratio <= GAIN and worse < 1}
    chosen = min(faster, key=lambda name: faster[name], default=DENSE)
    rows = [
        BackendTiming(
            name,
            batch,
            1000 * statistics.median(times[name]) if name in times else None,
            1.0 if name == DENSE else 1 / gains[name][0] if name in gains else None,
            differences.get(name),
            judged.get(name),
            name == chosen,
            whys.get(name, ""),
        )
        for name in (DENSE, *candidates)
    ]
    return chosen, rows


def _ratio(took: list[float], dense: list[float]) -> tuple[float, float]:
    """Return the median and the third quartile of the ratios of times in the same rounds."""
    ratios = sorted(a / b for a, b in zip(took, dense, strict=False))  # until one drops out
    return statistics.median(ratios), ratios[(3 * len(ratios) - 1) // 4]


def _too_far(
    candidate: Contender,
    found: list[Tensor],
    wanted: list[Tensor],
    rms: float | None,
    judged: Mapping[str, float],
    name: str,
    limits: Limits,
) -> str:
    """Return why a candidate's outputs are too far from the wanted ones; an empty string if they are not."""
    if candidate.exact:
        worst = beyond_rounding(wanted, found)
        return f"its outputs differ by {worst:.1e}" if worst else ""
    if limits.judge is not None:
        more = judged[name] - judged[DENSE]
        return "" if more <= limits.tolerance else f"its error is higher by {more:.2g}"
    return "" if rms is not None and rms <= limits.tolerance else f"its outputs differ by {rms:.1%}"


def _rms(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the root mean square of the differences of outputs, relative to that of the outputs."""
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return math.inf
    pairs = [(x.double().cpu(), y.double().cpu()) for x, y in zip(found, wanted, strict=True)]
    apart = sum(float((x - y).square().nan_to_num(math.inf).sum()) for x, y in pairs)
    size = sum(float(y.square().nan_to_num().sum()) for _, y in pairs)
    return math.sqrt(apart / size) if size else math.inf if apart else 0.0
