"""Losses of the estimators, each over rows with weights, and what their outputs say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

RowFunction = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) ↦ something for each row


@dataclass(frozen=True)
class RowLoss:
    """A loss of each row of outputs.

    Attributes:
        value: the loss, (n,).
        slope: its derivatives by the outputs, (n, q).
        curvature: its second derivatives, (n, q, q).
        curved: (outputs, targets) ↦ a function: directions of the rows, (n, q) ↦ their product with these, (n, q).
        is_shift_invariant: whether it stays the same if a number is added to all outputs of a row.
        is_quadratic: whether its second derivatives are the same for all outputs.
    """

    value: RowFunction
    slope: RowFunction
    curvature: RowFunction
    curved: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
    is_shift_invariant: bool = False
    is_quadratic: bool = False


def _one_hot(outputs: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(outputs).scatter(1, y.long(), 1.0)


def _spread(outputs: Tensor) -> Tensor:
    shares = outputs.softmax(dim=1)
    return torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]


def _spread_along(outputs: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    shares = outputs.softmax(dim=1)

    def along(directions: Tensor) -> Tensor:
        own = shares * directions
        return own - shares * own.sum(dim=1, keepdim=True)

    return along


def _logistic_along(outputs: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    factors = outputs.sigmoid() * (-outputs).sigmoid()
    return lambda directions: factors * directions


# ½‖outputs − y‖²
SQUARED = RowLoss(
    value=lambda outputs, y: (outputs - y).square().sum(dim=1) / 2,
    slope=lambda outputs, y: outputs - y,
    curvature=lambda outputs, y: torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1),
    curved=lambda outputs, y: lambda directions: directions,
    is_quadratic=True,
)
# cross-entropy of one output, the log odds of class 1 against class 0
LOGISTIC = RowLoss(
    value=lambda outputs, y: binary_cross_entropy_with_logits(outputs, y, reduction="none")[:, 0],
    slope=lambda outputs, y: outputs.sigmoid() - y,
    curvature=lambda outputs, y: (outputs.sigmoid() * (-outputs).sigmoid())[:, :, None],
    curved=_logistic_along,
)
# cross-entropy of one output for each class; y has the number of the class
MULTINOMIAL = RowLoss(
    value=lambda outputs, y: cross_entropy(outputs, y[:, 0].long(), reduction="none"),
    slope=lambda outputs, y: outputs.softmax(dim=1) - _one_hot(outputs, y),
    curvature=lambda outputs, y: _spread(outputs),
    curved=_spread_along,
    is_shift_invariant=True,
)


@dataclass(frozen=True)
class RowCurvature:
    """Second derivatives of a loss that is a sum over rows, at some outputs.

    Args:
        loss: of each row.
        outputs: of the rows, (n, q).
        y: their targets.
        factors: of the rows in the sum, (n,).
    """

    loss: RowLoss
    outputs: Tensor
    y: Tensor
    factors: Tensor

    @cached_property
    def _curved(self) -> Callable[[Tensor], Tensor]:
        return self.loss.curved(self.outputs, self.y)

    def times(self, directions: Tensor) -> Tensor:
        """Return their product with directions of the outputs, (n, q)."""
        return self.factors[:, None] * self._curved(directions)

    def between(self, x: Tensor) -> Tensor:
        """Return the second derivatives by the weights of inputs x, (n, p): (p · q, p · q)."""
        within = self.factors[:, None, None] * self.loss.curvature(self.outputs, self.y)
        size, q = x.shape[1], within.shape[1]
        if q == 1:
            return x.mT @ (x * within[:, 0])
        found = x.new_zeros(size, q, size, q)
        for i, j in combinations_with_replacement(range(q), 2):
            if within[:, i, j].any():
                found[:, i, :, j] = found[:, j, :, i] = x.mT @ (x * within[:, i, j, None])
        return found.reshape(size * q, size * q)


@dataclass(frozen=True)
class Targets:
    """The targets of training rows, and the weighted mean of their loss.

    Attributes:
        y: the targets, one row each: (n, q) numbers, or (n, 1) numbers of classes.
        weights: the weight of each row, (n,), with mean 1.
        outputs: the number of outputs of a model for them.
        row_loss: the loss of each row.
    """

    y: Tensor
    weights: Tensor
    outputs: int
    row_loss: RowLoss
    ignores_shifts: ClassVar[bool] = False

    def value(self, outputs: Tensor) -> Tensor:
        """Return the loss of outputs for all rows, a scalar."""
        return (self.weights * self.row_loss.value(outputs, self.y)).mean()

    def slope(self, outputs: Tensor) -> Tensor:
        """Return its gradient, (n, q)."""
        return self.weights[:, None] / len(self.y) * self.row_loss.slope(outputs, self.y)

    def curvature(self, outputs: Tensor) -> RowCurvature:
        """Return its second derivatives, which are zero between rows."""
        return RowCurvature(self.row_loss, outputs, self.y, self.weights / len(self.y))

    @property
    def is_shift_invariant(self) -> bool:
        """True if the loss stays the same when a number is added to all outputs of a row."""
        return self.row_loss.is_shift_invariant

    @property
    def is_quadratic(self) -> bool:
        """True if the second derivatives are the same for all outputs."""
        return self.row_loss.is_quadratic

    @property
    def packed(self) -> Tensor:
        """The targets with the weights in a last column, for :meth:`packed_loss`."""
        return torch.cat([self.y, self.weights[:, None]], dim=1)

    def packed_loss(self, outputs: Tensor, packed: Tensor) -> Tensor:
        """Return the weighted mean loss for some rows of :attr:`packed`."""
        return (packed[:, -1] * self.row_loss.value(outputs, packed[:, :-1])).mean()

    def some(self, rows: Tensor) -> Targets:
        """Return the targets of some rows, given by their numbers."""
        weights = self.weights[rows]
        return replace(self, y=self.y[rows], weights=weights / weights.mean().clamp_min(1e-300))

    def to(self, dtype: torch.dtype) -> Targets:
        """Return the targets in another precision."""
        return replace(self, y=self.y.to(dtype), weights=self.weights.to(dtype))
