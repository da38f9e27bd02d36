"""The record of epochs that were added to a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Extension:
    """Epochs that ``--more-epochs`` added to a finished run.

    Attributes:
        after: the number of epochs that the run had.
        epochs: the number of epochs that were added.

    Examples:
        >>> Extension(after=20, epochs=5).total
        25
    """

    after: int
    epochs: int

    def __post_init__(self) -> None:
        if self.after < 1 or self.epochs < 1:
            raise ValueError(f"{self.epochs} epochs cannot be added after {self.after}: both must be at least 1")

    @property
    def total(self) -> int:
        """The number of epochs with those that were added."""
        return self.after + self.epochs


def check_extensions(extensions: Sequence[Extension]) -> None:
    """Raise ``ValueError`` if an extension begins after epochs that the one before it does not have."""
    for one, other in pairwise(extensions):
        if not one.after <= other.after <= one.total:
            raise ValueError(f"epochs cannot be added after {other.after}: the run has {one.total}")
