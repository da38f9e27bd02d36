"""A trainer with what a run asks of it: its zeros, its λ, and when the zeros are held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torchlasso.optim import Proximal
from torchlasso.selection import Group
from torchlasso.training.trainer import Trainer, sparsity


@dataclass(frozen=True)
class Training:
    """A trainer, and a function that returns the penalised groups with their current λ.

    ``settled`` is the number of epochs after which the zeros are held, in a run that goes on after it met its target.
    """

    trainer: Trainer
    groups: Callable[[], list[Group]]
    settled: int | None = None
    penalised: int = field(init=False)  # weights at the start; removed weights count as zeros

    def __post_init__(self) -> None:
        params = (p for group in self.groups() if group["penalty"] is not None for p in group["params"])
        object.__setattr__(self, "penalised", sum(p.numel() for p in params))

    def settle(self) -> None:
        """Hold the zeros from the next step on, if it is time."""
        optimizer = self.trainer.optimizer
        if self.settled is not None and self.trainer.epoch >= self.settled and isinstance(optimizer, Proximal):
            optimizer.hold()

    @property
    def cuts(self) -> list[dict[str, Any]]:
        """The records of the removals from the model so far."""
        return [] if self.trainer.shrinker is None else self.trainer.shrinker.records

    @property
    def sparsity(self) -> float:
        """The share of zeros among the penalised weights."""
        return sparsity(self.groups(), of=self.penalised)

    @property
    def lam(self) -> float:
        """The current λ: the largest of all groups."""
        largest: float = max(group["lam"] for group in self.groups())
        return largest
