"""The quality of a regression, by scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from sklearn import metrics
from torch import Tensor

from torchlasso.runs.quality import intervals
from torchlasso.runs.quality.intervals import Figures
from torchlasso.runs.quality.record import Score, TargetScore


def scores_by_target(
    outputs: Tensor, y: Tensor, wanted: Sequence[str], names: Sequence[str] = ()
) -> tuple[TargetScore, ...]:
    """Compute the figures of some measures for each target.

    Args:
        outputs, y: predictions and targets, (n, targets).
        wanted: keys of measures of numbers.
        names: of the targets; without them, their numbers from 1 on.
    """
    predicted, known = (part.detach().double().cpu().numpy().reshape(len(y), -1) for part in (outputs, y))
    return tuple(
        TargetScore(name, {key: _FUNCTIONS[key](known[:, k], predicted[:, k]) for key in wanted})
        for k, name in enumerate(names or map(str, range(1, known.shape[1] + 1)))
    )


def means_of(targets: Sequence[TargetScore]) -> dict[str, Score]:
    """Return the means of the figures over the targets; without intervals unless there is a single target."""
    if len(targets) == 1:
        return targets[0].scores
    found = {}
    for key in targets[0].scores:
        values = [target.scores[key].value for target in targets]
        known = [value for value in values if value is not None]
        found[key] = Score(sum(known) / len(known) if len(known) == len(values) else None)
    return found


def _r2(y: Figures, predicted: Figures) -> Score:
    if len(y) < 2 or not y.var():
        return Score(None)
    return Score(float(metrics.r2_score(y, predicted)), *(intervals.of_r2(y, predicted - y) or ()))


def _rmse(y: Figures, predicted: Figures) -> Score:
    limits = intervals.of_mean(np.square(predicted - y))
    roots = () if limits is None else (math.sqrt(max(0.0, each)) for each in limits)
    return Score(float(metrics.root_mean_squared_error(y, predicted)), *roots)


def _mae(y: Figures, predicted: Figures) -> Score:
    low, high = intervals.of_mean(np.abs(predicted - y)) or (None, None)
    return Score(float(metrics.mean_absolute_error(y, predicted)), None if low is None else max(0.0, low), high)


_FUNCTIONS = {"r2": _r2, "rmse": _rmse, "mae": _mae}
