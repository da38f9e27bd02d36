"""A point of a path: what its model came to."""

from __future__ import annotations

from dataclasses import dataclass

from torchlasso.diagnostics.stationarity import Stationarity
from torchlasso.training.trainer import Evaluation


@dataclass(frozen=True)
class Point:
    """One point of a path, and how good its model is.

    Attributes:
        index: 0 for the dense model, then 1, 2, ….
        lam: λ, as it was at the end of its training.
        sparsity, nonzero: zeros over penalised weights, and how many are left.
        validation, test: on these rows; None where there are none.
        spread: the standard error of the validation error (for numbers of the validation loss).
        stationarity: on the whole training set, in units of λ; None for the dense model.
        epochs, seconds: of its own training.
    """

    index: int
    lam: float
    sparsity: float
    nonzero: int
    validation: Evaluation | None
    test: Evaluation | None
    spread: float | None
    stationarity: Stationarity | None
    epochs: int
    seconds: float

    @property
    def badness(self) -> float | None:
        """The validation error, for numbers the validation loss: what a choice goes by."""
        return None if self.validation is None else badness(self.validation)


def badness(found: Evaluation) -> float:
    """The error, where there are classes; else the loss."""
    return found.loss if found.error is None else found.error
