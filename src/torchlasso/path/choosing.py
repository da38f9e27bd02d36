"""Choose a point of a path, by validation rows or by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from torchlasso._core.specs import unknown
from torchlasso.path.points import Point, badness
from torchlasso.training.evaluation import Evaluation

RULES = ("best", "one-se", "within")


def choose(points: Sequence[Point], rule: str = "one-se", tolerance: float = 0.0) -> Point:
    """Choose a point of a path by its validation figures.

    Args:
        points: points with validation figures.
        rule: ``"best"``: the least validation error. ``"one-se"``: the fewest weights left within one standard error
            of the best (Breiman, Friedman, Olshen and Stone 1984). ``"within"``: the fewest within ``tolerance`` of
            the best.
        tolerance: a fraction of the rows; for regression, a loss.

    Of points with equally many weights left, the one with the least error is chosen, and of these the first.

    Raises:
        ValueError: the rule is unknown, the tolerance is below 0, or there are no points with validation figures.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number, at least 0; got {tolerance!r}")
    known = [(point.badness, point) for point in points if point.badness is not None]
    if not known or len(known) < len(points):
        raise ValueError("choosing a point needs validation figures: give the path validation rows")
    least, best = min(known, key=lambda entry: entry[0])
    allowed = {"best": 0.0, "one-se": best.spread or 0.0, "within": tolerance}[rule]
    good = [(point.nonzero, value, point) for value, point in known if value <= least + allowed]
    return min(good, key=lambda entry: entry[:2])[-1]


def pooled(points: Sequence[Point], folds: Sequence[Sequence[Point]], *, folds_are_alike: bool = True) -> list[Point]:
    """Give the points the validation figures of cross-validation: means over the folds and their standard errors.

    Points that some fold did not reach, because its path ended earlier, are left out.

    Args:
        points: of all training rows.
        folds: the points of each fold.
        folds_are_alike: whether the loss of a fold estimates that of all. In survival it depends on the number of its
            events: then the standard error follows from those of the folds, not from their differences.
    """
    found = []
    for point, *others in zip(points, *folds, strict=False):
        evaluations = [other.validation for other in others if other.validation is not None]
        if len(evaluations) < len(others):
            raise ValueError(f"point {point.index} of a fold has no validation figures")
        losses, values = [e.loss for e in evaluations], [badness(e) for e in evaluations]
        error = None if evaluations[0].error is None else _mean(values)
        balanced = [e.balanced_error for e in evaluations if e.balanced_error is not None]
        mean = Evaluation(
            _mean(losses),
            None if error is None else 1 - error,
            error,
            _mean(balanced) if len(balanced) == len(evaluations) else None,
        )
        if folds_are_alike:
            spread = float(torch.tensor(values, dtype=torch.float64).std() / math.sqrt(len(values)))
        else:
            spread = math.hypot(*(other.spread or 0.0 for other in others)) / len(others)
        found.append(replace(point, validation=mean, spread=spread))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def folds_of(n: int, k: int, seed: int, groups: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Split ``n`` rows in random order into ``k`` folds; return the training and the held-out rows of each.

    ``groups``: the number of the group of each row, (n,): all rows of a group are in one fold.

    Examples:
        >>> [held.tolist() for _, held in folds_of(4, 2, seed=0)]
        [[0, 1], [3, 2]]
    """
    if not 2 <= k <= n:
        raise ValueError(f"folds must be from 2 to the number of rows, {n:,}; got {k}")
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        parts = torch.randperm(n, generator=generator).tensor_split(k)
    else:
        parts = _folds_of_groups(groups, k, generator)
    return [(torch.cat([other for other in parts if other is not part]), part) for part in parts]


def _folds_of_groups(groups: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Give each group, in random order, to the fold with the fewest rows."""
    _, code, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < k:
        raise ValueError(f"folds must be from 2 to the number of groups, {len(sizes):,}; got {k}")
    rows, fold = [0] * k, torch.zeros_like(sizes)
    for group in torch.randperm(len(sizes), generator=generator).tolist():
        smallest = rows.index(min(rows))
        fold[group] = smallest
        rows[smallest] += int(sizes[group])
    return tuple((fold[code] == i).nonzero().flatten() for i in range(k))
