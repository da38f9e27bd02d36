"""The choice of the features that a network sees of a table with more features than rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.linear_path import LinearPath
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.smooth import TrainingLoss

AT_ONCE = 2**22  # numbers of a part of the columns
SHARE, TOLERANCE = 0.3, 1e-3  # of the linear model between the two rounds: its λ relative to the largest one


def distinct_rows(x: Tensor, most: int) -> int:
    """Return the number of different rows; above ``most``, only that it is more.

    A row that is there twice tells no more about the features than one of weight 2.

    Examples:
        >>> distinct_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), most=10)
        2
    """
    found = set[bytes]()
    for row in x.numpy():
        found.add(row.tobytes())
        if len(found) > most:
            break
    return len(found)


def promising_columns(x: Tensor, targets: TrainingLoss, groups: FeatureGroups, most: int) -> Numbers:
    """Return about so many columns of a table that say most about the targets, in order: whole groups, and kept ones.

    The first half are those with the largest score, given that nothing is known (sure independence screening of Fan
    and Lv 2008); the other half those with the largest one given a linear model of the first half, which may say
    something only then. The score of a feature is the squared covariance of the loss's slope with it and with its
    distance from the mean, each scaled to variance 1 and the second one without its linear part: so a feature is
    seen that shifts the targets, or both of whose ends do.

    Args:
        x: the features, (n, p).
        targets: the targets of its rows.
        groups: the groups of the features; their score is the mean over the features.
        most: the number of columns, below p.
    """
    targets, has_constant = targets.to(torch.float64), not targets.ignores_shifts

    def linear(columns: Numbers) -> LinearPath:
        own = x[:, columns].double()
        scaled = _scaled(own, targets.weights / targets.weights.sum())
        return LinearPath(scaled, targets, groups.only(columns), 1.0, has_constant, TOLERANCE)

    kept = np.array(sorted(groups.kept), dtype=np.int64)
    start = linear(kept if len(kept) else np.array(groups.members[0]))
    nothing = start.problem.slope_at_zero
    first = _best(_scores(x, nothing, targets.weights), groups, kept, len(kept) + (most - len(kept) + 1) // 2)
    path = linear(first)
    found = path.solution(SHARE * path.lambda_max)
    left = targets.slope(path.x @ found.coef + found.intercept)
    return _best(_scores(x, left, targets.weights), groups, first, most)


def _best(scores: Numbers, groups: FeatureGroups, given: Numbers, most: int) -> Numbers:
    """Return columns that are given, and those of the groups with the best scores until there are so many."""
    numbers, chosen = groups.numbers, np.zeros(groups.features, dtype=bool)
    chosen[given] = True
    sizes = np.bincount(numbers)
    means = np.bincount(numbers, weights=scores) / sizes
    means[np.unique(numbers[given])] = -np.inf  # they are there already
    order = np.argsort(-means, kind="stable")
    room = most - len(given)
    fitting = order[: int(np.searchsorted(sizes[order].cumsum(), room, side="right"))]
    chosen |= np.isin(numbers, fitting[np.isfinite(means[fitting])])
    return np.flatnonzero(chosen)


def _scores(x: Tensor, slope: Tensor, weights: Tensor) -> Numbers:
    """Return the score of each column for the slope of a loss by the outputs, (n, q)."""
    shares, found = weights / weights.sum(), []
    for part in torch.split(x, max(1, AT_ONCE // len(x)), dim=1):
        scaled = _scaled(part.double(), shares)
        folded = _scaled(scaled.abs(), shares)
        # of a column with two values, nothing but rounding is left here
        folded = _scaled(folded - scaled * (shares @ (scaled * folded)), shares, least=1e-6)
        found.append(sum((each.mT @ slope).square().sum(dim=1) for each in (scaled, folded)))
    return np.asarray(torch.cat(found).numpy())  # type: ignore[arg-type]  # a sum of tensors


def _scaled(x: Tensor, shares: Tensor, least: float = 0.0) -> Tensor:
    """Return columns with mean 0 and variance 1; zeros where they hardly vary."""
    centre = shares @ x
    spread = (shares @ (x - centre).square()).sqrt()
    varies = spread > (1e-10 * centre.abs()).clamp_min(least)
    return torch.where(varies, (x - centre) / spread.where(varies, 1.0), 0.0)
