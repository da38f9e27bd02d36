"""Intervals of figures that are computed from a sample of rows, at a confidence of 95 %."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
LIMITS = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)
NORMAL = float(stats.norm.ppf(LIMITS[1]))
RESAMPLES = 500  # of the rows
ROUNDING = 1e-12  # of a half width, where all rows have the same part in a figure
TOGETHER = 50  # of them, as 40,000 cells of 200 classes would need much memory at once

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]
Interval = tuple[float, float]


def of_share(count: int, rows: int) -> Interval:
    """Return the interval of a share, ``count`` of ``rows`` (Wilson 1927)."""
    found = stats.binomtest(count, rows).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def of_balanced_accuracy(confusion: Counts) -> Interval:
    """Return the interval of the mean recall: a mean over strata, the classes, whose variances add up (Cochran 1977).

    The variance of each recall has two more rows, one of them right, so that it is above 0 (Agresti and Coull 1998).

    Args:
        confusion: the number of rows by class and prediction, (classes, classes).
    """
    right, rows = np.diag(confusion), confusion.sum(axis=1)
    right, rows = right[rows > 0], rows[rows > 0]
    value, smoothed = float((right / rows).mean()), (right + 1) / (rows + 2)
    half = NORMAL * math.sqrt(float((smoothed * (1 - smoothed) / rows).sum())) / len(rows)
    return max(0.0, value - half), min(1.0, value + half)


def of_macro_f1(confusion: Counts) -> Interval | None:
    """Return the interval of the macro F1 by the bootstrap of the rows; None where all samples have the same value.

    To draw rows is to draw cells of the confusion matrix, (classes, classes), in proportion to their counts.
    """
    true, said = confusion.nonzero()
    rows, generator, found = int(confusion.sum()), np.random.default_rng(0), []
    right, classes = true == said, np.eye(len(confusion))
    sides = classes[true] + classes[said]  # (cells, classes)
    for _ in range(RESAMPLES // TOGETHER):
        drawn = generator.multinomial(rows, confusion[true, said] / rows, size=TOGETHER)  # (samples, cells)
        either = drawn @ sides  # (samples, classes)
        both = drawn[:, right] @ sides[right]  # twice the rows of each class that are right
        seen = either > 0
        found.append((both / np.where(seen, either, 1)).sum(axis=1) / seen.sum(axis=1))
    low, high = np.quantile(found, LIMITS)
    return (float(low), float(high)) if low < high else None


def of_auc(value: float, positive: int, negative: int) -> Interval | None:
    """Return the interval of an AUC for two classes with so many rows (Hanley and McNeil 1982).

    None where no pair is wrong, or all are: the interval would have no width.
    """
    both = value * value
    of_positive, of_negative = value / (2 - value), 2 * both / (1 + value)
    variance = value * (1 - value) + (positive - 1) * (of_positive - both) + (negative - 1) * (of_negative - both)
    half = NORMAL * math.sqrt(max(0.0, variance) / (positive * negative))
    return (max(0.0, value - half), min(1.0, value + half)) if half else None


def of_mean_auc(truth: NDArray[np.int64], likely: Figures) -> Interval | None:
    """Return the interval of the mean AUC of each class against the rest (DeLong, DeLong and Clarke-Pearson 1988).

    Each AUC is a mean over pairs of rows. A row's part in it is the mean over its pairs; the mean AUC is about the sum
    of the parts of the rows, and the classes are strata, whose variances add up.

    Args:
        truth: class indices, (n,).
        likely: the probabilities of the classes, (n, classes).

    Returns:
        None where a class has fewer than two rows, or where all rows have the same part, as without a wrong pair.
    """
    classes, counts = likely.shape[1], np.bincount(truth, minlength=likely.shape[1])
    if counts.min() < 2:
        return None
    part, value = np.zeros(len(truth)), 0.0
    for k, (column, count) in enumerate(zip(likely.T, counts, strict=True)):
        mine, ranks = truth == k, stats.rankdata(column)
        # the share of the rest below a row of the class, and the share of the class above a row of the rest
        below = (ranks[mine] - stats.rankdata(column[mine])) / (len(truth) - count)
        above = 1 - (ranks[~mine] - stats.rankdata(column[~mine])) / count
        value += below.mean() / classes
        part[mine] += below / count
        part[~mine] += above / (len(truth) - count)
    spread = sum(count * part[truth == k].var(ddof=1) for k, count in enumerate(counts)) / classes**2
    half = NORMAL * math.sqrt(spread)
    return (max(0.0, value - half), min(1.0, value + half)) if half > ROUNDING else None


def of_mean(values: Figures) -> Interval | None:
    """Return the interval of the mean of independent values, (n,), by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(LIMITS[1], len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def of_r2(y: Figures, errors: Figures) -> Interval | None:
    """Return the interval of R² by the delta method: R² is a function of two means.

    Args:
        y, errors: the targets and the differences of the outputs from them, (n,).
    """
    spread = np.square(y - y.mean())
    if len(y) < 2 or not spread.mean():
        return None
    left = np.square(errors).mean() / spread.mean()
    limits = of_mean((np.square(errors) - left * spread) / spread.mean())  # of mean 0
    return None if limits is None else (float(1 - left - limits[1]), min(1.0, float(1 - left - limits[0])))
