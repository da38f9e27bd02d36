"""Groups of the inputs of a linear model, and the elastic net over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputGroups:
    """Groups of the rows of B, and the strengths of their penalties.

    Args:
        numbers: the number of the group of each row, (p,), from 0 on.
        l1: α, (groups,): of the norm; 0 for a group that is not selected but always there.
        l2: β, (groups,): of half the squared norm.
        positive: a mask of the groups whose numbers are at least 0, each of one number, (groups,); None for none.
    """

    numbers: Tensor
    l1: Tensor
    l2: Tensor
    positive: Tensor | None = None

    def only(self, groups: Tensor) -> tuple[Tensor, InputGroups]:
        """Return the rows of some groups, given by a mask, and the groups of these rows."""
        new = groups.cumsum(0) - 1
        rows = groups[self.numbers].nonzero()[:, 0]
        positive = None if self.positive is None else self.positive[groups]
        return rows, InputGroups(new[self.numbers[rows]], self.l1[groups], self.l2[groups], positive)

    def with_free(self) -> InputGroups:
        """Return these groups and one more, of one more row, without a penalty."""
        numbers = torch.cat([self.numbers, self.numbers.new_tensor([len(self.l1)])])
        nothing = self.l1.new_zeros(1)
        positive = None if self.positive is None else torch.cat([self.positive, self.positive.new_zeros(1)])
        return InputGroups(numbers, torch.cat([self.l1, nothing]), torch.cat([self.l2, nothing]), positive)

    @property
    def are_single(self) -> Tensor:
        """A mask of the groups that are zero or not by a single number: penalised, or of numbers of at least 0."""
        sizes = self.l1.new_zeros(len(self.l1)).index_add(0, self.numbers, self.l1.new_ones(len(self.numbers)))
        return (sizes == 1) & ~self.are_free

    @property
    def are_free(self) -> Tensor:
        """A mask of the groups that nothing makes zero."""
        return self.l1 == 0 if self.positive is None else (self.l1 == 0) & ~self.positive

    def pulls(self, gradient: Tensor) -> Tensor:
        """Return the part of a gradient, (p, …), that can move a row away from zero."""
        if self.positive is None:
            return gradient
        rows = self.positive[self.numbers].reshape(-1, *[1] * (gradient.dim() - 1))
        return torch.where(rows, gradient.clamp_max(0), gradient)

    def norms(self, coef: Tensor) -> Tensor:
        """Return ‖B_g‖ of each group."""
        return coef.new_zeros(len(self.l1)).index_add(0, self.numbers, coef.square().sum(dim=1)).sqrt()

    def value(self, coef: Tensor, lam: float) -> Tensor:
        """Return the penalty, a scalar."""
        norms = self.norms(coef)
        return lam * (self.l1 * norms + self.l2 / 2 * norms.square()).sum()

    def prox(self, coef: Tensor, lam: float, step: float) -> Tensor:
        """Return argmin_u ½‖u − coef‖² + step·penalty(u)."""
        if self.positive is not None:
            coef = torch.where(self.positive[self.numbers, None], coef.clamp_min(0), coef)
        norms = self.norms(coef)
        left = (1 - step * lam * self.l1 / norms).where(norms > 0, 0.0).clamp_min(0)
        return coef * (left / (1 + step * lam * self.l2))[self.numbers, None]

    def distances(self, coef: Tensor, gradient: Tensor, lam: float) -> Tensor:
        """Return dist(−gradient, ∂penalty) of each group: 0 where it is stationary."""
        norms = self.norms(coef)
        slope = lam * ((self.l1 / norms).where(norms > 0, 0.0) + self.l2)
        apart = gradient + coef * slope[self.numbers, None]
        away = self.norms(torch.where(coef == 0, self.pulls(apart), apart))
        return (away - (lam * self.l1).where(norms == 0, 0.0)).clamp_min(0)
