"""Weights of rows in the loss of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from torchlasso.training.survival import weighted_cox

RowLosses = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) ↦ the loss of each row, (n,)


@dataclass(frozen=True)
class RowWeights:
    """A loss in which each training row has its own weight: the mean of weight·loss over the rows.

    As with weights of classes, the weights are not divided by their sum over a batch, so that each row has the same
    weight in every batch.

    Attributes:
        weights: of all training rows, (n,); with the mean 1, λ means the same as without weights.
        losses: (outputs, targets) ↦ the loss of each row.

    Examples:
        >>> import torch
        >>> weighted = RowWeights(torch.tensor([2.0, 0.0]), lambda outputs, y: (outputs - y).square().mean(1))
        >>> weighted(torch.ones(2, 1), torch.zeros(2, 1), torch.arange(2))
        tensor(1.)
    """

    weights: Tensor
    losses: RowLosses

    def __call__(self, outputs: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return (self.weights[rows] * self.losses(outputs, y)).mean()


@dataclass(frozen=True)
class CoxWeights:
    """Cox's partial likelihood in Efron's form, in which each training row has its own weight.

    ℓ = 1/n · Σ over events i of w_i·(log Σ over rows j at risk of w_j·exp(η_j) − η_i)

    and events of the same time have their mean weight in the first term. In a batch, only its rows are at risk.

    Attributes:
        weights: of all training rows, (n,), with the mean 1.

    Examples:
        >>> import torch
        >>> weighted = CoxWeights(torch.tensor([1.0, 2.0, 0.0]))
        >>> weighted(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.2757)
    """

    weights: Tensor

    def __call__(self, outputs: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return weighted_cox(outputs, y, self.weights[rows])
