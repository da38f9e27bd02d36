"""A line of ``metrics.jsonl``: what is kept of an epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """An epoch that is over.

    Attributes:
        epoch: its number, from 1 on.
        loss: the mean loss of its steps.
        sparsity, switched: zeros over penalised weights, and the share that went from or to zero.
        lam, lr: λ and the learning rate at its end.
        seconds: since the training began.
        val_loss, val_accuracy, val_error: on the validation rows, where there are any.
        multiplications_left: the share that was left when the model was made smaller after it.
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
    multiplications_left: float | None = None
