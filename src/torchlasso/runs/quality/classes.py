"""The quality of a classifier.

The figures are those of scikit-learn, which the tests compare them with. They are computed here from one matrix of
counts and from ranks: scikit-learn checks its arguments in each call, for longer than a small part takes.
"""

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
        sampled: whether to compute the intervals that take long: of the macro F1, and of the AUC of several classes.
    """
    truth, guess = y.cpu().numpy(), outputs.argmax(dim=1).cpu().numpy()
    likely = outputs.detach().double().softmax(dim=1).cpu().numpy()
    table = confusion_of(truth, guess, likely.shape[1])
    computed = {
        "error": lambda: _error(table),
        "balanced_accuracy": lambda: _balanced(table),
        "macro_f1": lambda: _macro_f1(table, sampled),
        "auc": lambda: _auc(truth, likely, sampled),
        "log_loss": lambda: _log_loss(outputs, y),
        "calibration_error": lambda: Score(calibration_error(truth == guess, likely.max(axis=1))),
    }
    return {key: computed[key]() for key in wanted}


def confusion_of(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> Counts:
    """Return the number of rows by class and prediction, (classes, classes)."""
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def by_class(table: Counts, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class, from its confusion matrix, (classes, classes)."""
    right, support, guessed = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return tuple(
        ClassScore(
            name,
            _share(right[k], guessed[k]),
            _share(right[k], support[k]),
            _share(2 * right[k], support[k] + guessed[k]),
            support=int(support[k]),
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


def _share(count: int, of: int) -> float | None:
    return float(count / of) if of else None


def _error(table: Counts) -> Score:
    rows = int(table.sum())
    wrong = rows - int(np.trace(table))
    return Score(wrong / rows, *intervals.of_share(wrong, rows))


def _balanced(table: Counts) -> Score:
    rows = table.sum(axis=1)
    value = float((np.diag(table)[rows > 0] / rows[rows > 0]).mean())
    return Score(value, *intervals.of_balanced_accuracy(table))


def _macro_f1(table: Counts, with_interval: bool) -> Score:
    either = table.sum(axis=0) + table.sum(axis=1)  # a class without rows and predictions has no F1
    value = float((2 * np.diag(table)[either > 0] / either[either > 0]).mean())
    limits = intervals.of_macro_f1(table) if with_interval and len(table) <= MOST else None
    return Score(value, *(limits or ()))


def _auc(truth: NDArray[np.int64], likely: Figures, with_interval: bool) -> Score:
    """Return the area under the ROC curve; for more than two classes, the mean of each against the rest."""
    counts = np.bincount(truth, minlength=likely.shape[1])
    if not counts.all() or not 1 < len(counts) <= MOST:
        return Score(None)
    if len(counts) > 2:
        value = float(np.mean([_area(truth == k, column) for k, column in enumerate(likely.T)]))
        return Score(value, *((with_interval and intervals.of_mean_auc(truth, likely)) or ()))
    value = _area(truth == 1, likely[:, 1])
    return Score(value, *(intervals.of_auc(value, int(counts[1]), int(counts[0])) or ()))


def _area(positive: NDArray[np.bool_], values: Figures) -> float:
    """Return the share of pairs of a positive and a negative row in which the positive one has the larger value.

    Ties count half. The ranks of the positive rows add up to their number of pairs, among themselves too.
    """
    count = int(positive.sum())
    pairs = float(stats.rankdata(values)[positive].sum()) - count * (count + 1) / 2
    return pairs / (count * (len(values) - count))


def _log_loss(outputs: Tensor, y: Tensor) -> Score:
    if outputs.shape[1] < 2:
        return Score(None)
    losses = torch.nn.functional.cross_entropy(outputs.detach().double(), y, reduction="none").cpu().numpy()
    low, high = intervals.of_mean(losses) or (None, None)
    return Score(float(losses.mean()), None if low is None else max(0.0, low), high)
