"""A point of a path, with its results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torchlasso.diagnostics.stationarity import Stationarity
from torchlasso.training.evaluation import Evaluation


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
        epochs, seconds: the length of its own training, with that of other values of λ that were tried for it.
        tries: the number of these trainings.
        losses: the mean training loss of each epoch; () if it is not known.
        miss: why its zeros are far from the wanted ones; None if they are near, or if λ was given.
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
    tries: int = field(default=1, metadata={"newer": True})  # files of earlier versions do not have it
    losses: tuple[float, ...] = field(default=(), metadata={"newer": True})
    miss: str | None = None

    @property
    def badness(self) -> float | None:
        """The validation error, or for regression the validation loss, by which points are chosen."""
        return None if self.validation is None else badness(self.validation)


def badness(found: Evaluation) -> float:
    """Return the error for classes, else the loss."""
    return found.loss if found.error is None else found.error


def log_odds(sparsity: float) -> float:
    """Return the log odds of a nonzero weight; shares of zeros within a millionth of 0 or 1 are taken to be there.

    >>> log_odds(0.5), round(log_odds(0.9), 3), round(log_odds(1.0), 3)
    (0.0, -2.197, -13.816)
    """
    left = min(max(1 - sparsity, 1e-6), 1 - 1e-6)
    return math.log(left / (1 - left))
