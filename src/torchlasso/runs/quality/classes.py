"""The quality of a classifier, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context, metrics
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
        "balanced_accuracy": lambda: _balanced(truth, guess, table),
        "macro_f1": lambda: _macro_f1(truth, guess, table if sampled else None),
        "auc": lambda: _auc(truth, likely, sampled),
        "log_loss": lambda: _log_loss(outputs, y),
        "calibration_error": lambda: Score(calibration_error(truth == guess, likely.max(axis=1))),
    }
    with config_context(skip_parameter_validation=True):  # it would take longer than the figures of a small part
        return {key: computed[key]() for key in wanted}


def confusion_of(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> Counts:
    """Return the number of rows by class and prediction, (classes, classes)."""
    with warnings.catch_warnings():  # of data with a single class
        warnings.simplefilter("ignore")
        found: Counts = metrics.confusion_matrix(truth, guess, labels=range(classes))
    return found


def by_class(table: Counts, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class, from its confusion matrix, (classes, classes)."""
    cells = np.indices(table.shape).reshape(2, -1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        *cells, labels=range(len(table)), sample_weight=table.ravel(), zero_division=np.nan
    )
    guessed = table.sum(axis=0)
    return tuple(
        ClassScore(
            name,
            _known(float(precision[k])),
            _known(float(recall[k])),
            _known(float(f1[k])),
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


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _error(table: Counts) -> Score:
    rows = int(table.sum())
    wrong = rows - int(np.trace(table))
    return Score(wrong / rows, *intervals.of_share(wrong, rows))


def _balanced(truth: NDArray[np.int64], guess: NDArray[np.int64], table: Counts) -> Score:
    with warnings.catch_warnings():  # of predicted classes without rows, which no recall is affected by
        warnings.simplefilter("ignore")
        value = float(metrics.balanced_accuracy_score(truth, guess))
    return Score(value, *intervals.of_balanced_accuracy(table))


def _macro_f1(truth: NDArray[np.int64], guess: NDArray[np.int64], table: Counts | None) -> Score:
    value = float(metrics.f1_score(truth, guess, average="macro", zero_division=0))
    limits = None if table is None or len(table) > MOST else intervals.of_macro_f1(table)
    return Score(value, *(limits or ()))


def _auc(truth: NDArray[np.int64], likely: Figures, with_interval: bool) -> Score:
    """Return the area under the ROC curve; for more than two classes, the mean of each against the rest."""
    counts = np.bincount(truth, minlength=likely.shape[1])
    if not counts.all() or not 1 < len(counts) <= MOST:
        return Score(None)
    if len(counts) > 2:
        value = float(metrics.roc_auc_score(truth, likely, multi_class="ovr", labels=range(len(counts))))
        return Score(value, *((with_interval and intervals.of_mean_auc(truth, likely)) or ()))
    value = float(metrics.roc_auc_score(truth, likely[:, 1]))
    return Score(value, *(intervals.of_auc(value, int(counts[1]), int(counts[0])) or ()))


def _log_loss(outputs: Tensor, y: Tensor) -> Score:
    if outputs.shape[1] < 2:
        return Score(None)
    losses = torch.nn.functional.cross_entropy(outputs.detach().double(), y, reduction="none").cpu().numpy()
    low, high = intervals.of_mean(losses) or (None, None)
    return Score(float(losses.mean()), None if low is None else max(0.0, low), high)
