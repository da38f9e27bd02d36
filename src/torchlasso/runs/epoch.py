"""The record of an epoch: a line of ``metrics.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """A finished epoch.

    Attributes:
        epoch: its number, from 1 on.
        loss: the mean loss of its steps.
        sparsity, switched: the share of zeros among the penalised weights, and the share of them that became zero or
            nonzero in this epoch.
        lam, lr: λ and the learning rate at its end.
        seconds: the time since the training began.
        val_loss, val_accuracy, val_error, val_balanced_error: on the validation rows, if there are any.
        val_balanced_accuracy, val_macro_f1, val_auc, val_log_loss, val_calibration_error, val_r2, val_rmse, val_mae:
            the figure by which the best epoch is kept, if there is one.
        weights_left: the number of nonzero parameters of the whole model, with those that are not penalised.
        multiplications_left: the share of multiplications left, if dead units were removed after this epoch.
    """

    epoch: int
    loss: float
    sparsity: float
    switched: float
    lam: float
    lr: float
    seconds: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    val_error: float | None = None
    val_balanced_error: float | None = None
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    val_auc: float | None = None
    val_log_loss: float | None = None
    val_calibration_error: float | None = None
    val_r2: float | None = None
    val_rmse: float | None = None
    val_mae: float | None = None
    weights_left: int | None = None
    multiplications_left: float | None = None
