"""The test for a gap between the validation and the test rows that chance does not explain."""

from __future__ import annotations

import numpy as np
from scipy import stats
from torch import Tensor

from torchlasso.runs.quality.intervals import Figures

Parts = tuple[Tensor, Tensor]  # of the validation rows and of the test rows


def chance_of_gap(outputs: Parts, targets: Parts, groups: Parts | None = None) -> float:
    """Return the probability of such a difference between two samples of rows from one population.

    For classes, Fisher's exact test compares the two shares of wrong rows. For regression, the test of Mann and Whitney
    compares the absolute errors, which are relative to their mean for each of several targets. Rows of a group are
    alike: where rows have groups, that test compares the mean errors of the groups.

    Args:
        outputs, targets: of the rows.
        groups: the number of the group of each row.
    """
    wrong = _wrong(outputs, targets)
    if groups is not None:
        wrong = [_means(part, numbers.numpy()) for part, numbers in zip(wrong, groups, strict=True)]
    elif not targets[0].is_floating_point():
        return float(stats.fisher_exact([[part.sum(), len(part) - part.sum()] for part in wrong]).pvalue)
    return float(stats.mannwhitneyu(*wrong).pvalue)


def _wrong(outputs: Parts, targets: Parts) -> list[Figures]:
    """Return how wrong each row is: 0 or 1 for classes, else its absolute error relative to the mean of all."""
    pairs = list(zip(outputs, targets, strict=True))
    if not targets[0].is_floating_point():
        return [(out.argmax(dim=1) != y).double().cpu().numpy() for out, y in pairs]
    errors = [(out - y).abs().double().cpu().numpy().reshape(len(y), -1) for out, y in pairs]
    scale = np.concatenate(errors).mean(axis=0)
    return [(each / np.where(scale > 0, scale, 1)).mean(axis=1) for each in errors]


def _means(values: Figures, numbers: np.ndarray) -> Figures:
    """Return the mean of each group."""
    _, places, rows = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.bincount(places.reshape(-1), weights=values) / rows
