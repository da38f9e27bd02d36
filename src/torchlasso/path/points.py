"""A point of a path, with its results."""

from __future__ import annotations

from dataclasses import dataclass

from torchlasso.diagnostics.stationarity import Stationarity
from torchlasso.training.trainer import Evaluation


@dataclass(frozen=True)
class Point:
    """A point of a path and the quality of its model.

    Attributes:
        index: 0 for the dense model, then 1, 2, ….
        lam: λ at the end of its training.
        sparsity, nonzero: the share of zeros among the penalised weights, and the number of nonzero ones.
        validation, test: the figures on these rows; None if there are none.
        spread: the standard error of the validation error (for regression, of the validation loss).
        stationarity: on the whole training set, in units of λ; None for the dense model.
        epochs, seconds: the length of its own training.
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
        """The validation error, or for regression the validation loss, by which points are chosen."""
        return None if self.validation is None else badness(self.validation)


def badness(found: Evaluation) -> float:
    """Return the error for classes, else the loss."""
    return found.loss if found.error is None else found.error
