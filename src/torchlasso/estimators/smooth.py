"""The interfaces of losses: for a linear model, and for any model of the estimators."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Curvature(Protocol):
    """The second derivatives H of a loss by the outputs of a model, (n, q, n, q), as far as they are needed."""

    def times(self, directions: Tensor) -> Tensor:
        """Return H·directions, (n, q), for directions of the outputs, (n, q)."""

    def between(self, x: Tensor) -> Tensor:
        """Return the second derivatives by the weights of inputs x, (n, p): (p · q, p · q)."""


class SmoothLoss(Protocol):
    """A convex, twice differentiable loss of the outputs of a model, (n, q): a mean over rows."""

    @property
    def ignores_shifts(self) -> bool:
        """True if it stays the same when a number is added to the outputs of all rows."""

    @property
    def is_quadratic(self) -> bool:
        """True if its second derivatives are the same for all outputs."""

    def value(self, outputs: Tensor) -> Tensor:
        """Return the loss, a scalar."""

    def slope(self, outputs: Tensor) -> Tensor:
        """Return its gradient, (n, q)."""

    def curvature(self, outputs: Tensor) -> Curvature:
        """Return its second derivatives."""


class TrainingLoss(SmoothLoss, Protocol):
    """The loss of training rows with their targets."""

    @property
    def outputs(self) -> int:
        """The number of outputs of a model."""

    @property
    def is_shift_invariant(self) -> bool:
        """True if it stays the same when a number is added to all outputs of a row."""

    @property
    def weights(self) -> Tensor:
        """The weight of each row, (n,); those of weight 0 count for nothing."""

    @property
    def packed(self) -> Tensor:
        """The targets and weights of the rows, (n, …), for :meth:`packed_loss`."""

    def packed_loss(self, outputs: Tensor, packed: Tensor) -> Tensor:
        """Return the mean loss of some rows of :attr:`packed`."""

    def some(self, rows: Tensor) -> TrainingLoss:
        """Return the loss of some rows, given by their numbers."""

    def to(self, dtype: torch.dtype) -> TrainingLoss:
        """Return the same loss in another precision."""
