"""The quality of a classifier, from its confusion matrix and its probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from torchlasso.runs.quality import intervals
from torchlasso.runs.quality.intervals import Counts, Figures
from torchlasso.runs.quality.record import ClassScore, Score

MOST = 200  # for more classes there is no matrix, no AUC and no interval of the macro F1
BINS = 15  # of the calibration error


def scores_of(outputs: Tensor, y: Tensor, wanted: Sequence[str], *, sampled: bool = True) -> dict[str, Score]:
    """Compute the figures of some measures.

    Args:
        outputs: the logits of the classes, (n, classes).
        y: class indices, (n,).
        wanted: keys of measures of classes.
        sampled: whether to compute the interval that needs random samples, of the macro F1.
    """
    truth, guess = y.cpu().numpy(), outputs.argmax(dim=1).cpu().numpy()
    likely = outputs.detach().double().softmax(dim=1).cpu().numpy()
    table = confusion_of(truth, guess, likely.shape[1])
    computed = {
        "error": lambda: _error(table),
        "balanced_accuracy": lambda: _balanced(table),
        "macro_f1": lambda: _macro_f1(table, sampled=sampled),
        "auc": lambda: _auc(truth, likely),
        "log_loss": lambda: _log_loss(outputs, y),
        "calibration_error": lambda: Score(calibration_error(truth == guess, likely.max(axis=1))),
    }
    return {key: computed[key]() for key in wanted}


def confusion_of(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> Counts:
    """Return the number of rows by class and prediction, (classes, classes)."""
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def by_class(table: Counts, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class, from its confusion matrix, (classes, classes)."""
    right, of_class, guessed = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return tuple(
        ClassScore(
            name,
            _share(right[k], guessed[k]),
            _share(right[k], of_class[k]),
            _share(2 * right[k], guessed[k] + of_class[k]),
            support=int(of_class[k]),
            predicted=int(guessed[k]),
        )
        for k, name in enumerate(names)
    )


def calibration_error(right: NDArray[np.bool_], confidence: Figures) -> float:
    """Return the expected calibration error: the mean distance of accuracy from confidence, over 15 equal bins.

    Each row falls into a bin by the probability of its predicted class; the mean is over rows (Naeini, Cooper and
    Hauskrecht 2015; Guo, Pleiss, Sun and Weinberger 2017).

    >>> round(calibration_error(np.array([True, True, False, True]), np.array([0.99, 0.99, 0.5, 0.5])), 3)
    0.005
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def _error(table: Counts) -> Score:
    rows = int(table.sum())
    wrong = rows - int(np.trace(table))
    return Score(wrong / rows, *intervals.of_share(wrong, rows))


def _balanced(table: Counts) -> Score:
    """Return the mean recall of the classes that have rows."""
    right, rows = np.diag(table), table.sum(axis=1)
    seen = rows > 0
    return Score(float((right[seen] / rows[seen]).mean()), *intervals.of_balanced_accuracy(table))


def _macro_f1(table: Counts, *, sampled: bool) -> Score:
    """Return the mean F1 of the classes that have rows or are predicted."""
    either = table.sum(axis=0) + table.sum(axis=1)
    seen = either > 0
    value = float((2 * np.diag(table)[seen] / either[seen]).mean())
    return Score(value, *((sampled and len(table) <= MOST and intervals.of_macro_f1(table)) or ()))


def _auc(truth: NDArray[np.int64], likely: Figures) -> Score:
    """Return the area under the ROC curve; for more than two classes, the mean of each against the rest.

    It is the share of pairs of a row of the class and another row that the probabilities order rightly, ties being half
    right, which the sum of the ranks of the class gives (Bamber 1975).
    """
    counts = np.bincount(truth, minlength=likely.shape[1])
    if not counts.all() or not 1 < len(counts) <= MOST:
        return Score(None)
    ranks, others = stats.rankdata(likely, axis=0), len(truth) - counts
    sums = np.array([ranks[truth == k, k].sum() for k in range(len(counts))])
    areas = (sums - counts * (counts + 1) / 2) / (counts * others)
    if len(counts) > 2:
        return Score(float(areas.mean()))
    return Score(float(areas[1]), *intervals.of_auc(float(areas[1]), int(counts[1]), int(counts[0])))


def _log_loss(outputs: Tensor, y: Tensor) -> Score:
    if outputs.shape[1] < 2:
        return Score(None)
    losses = torch.nn.functional.cross_entropy(outputs.detach().double(), y, reduction="none").cpu().numpy()
    low, high = intervals.of_mean(losses) or (None, None)
    return Score(float(losses.mean()), None if low is None else max(0.0, low), high)
