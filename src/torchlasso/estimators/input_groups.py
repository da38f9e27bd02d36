"""Groups of the inputs of a linear model, and the elastic net over them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class InputGroups:
    """Groups of the rows of B, and the strengths of their penalties.

    Args:
        numbers: the number of the group of each row, (p,), from 0 on.
        l1: α, (groups,): of the norm; 0 for a group that is not selected but always there.
        l2: β, (groups,): of half the squared norm.
    """

    numbers: Tensor
    l1: Tensor
    l2: Tensor

    def only(self, groups: Tensor) -> tuple[Tensor, InputGroups]:
        """Return the rows of some groups, given by a mask, and the groups of these rows."""
        new = groups.cumsum(0) - 1
        rows = groups[self.numbers].nonzero()[:, 0]
        return rows, InputGroups(new[self.numbers[rows]], self.l1[groups], self.l2[groups])

    def norms(self, coef: Tensor) -> Tensor:
        """Return ‖B_g‖ of each group."""
        return coef.new_zeros(len(self.l1)).index_add(0, self.numbers, coef.square().sum(dim=1)).sqrt()

    def value(self, coef: Tensor, lam: float) -> Tensor:
        """Return the penalty, a scalar."""
        norms = self.norms(coef)
        return lam * (self.l1 * norms + self.l2 / 2 * norms.square()).sum()

    def prox(self, coef: Tensor, lam: float, step: float) -> Tensor:
        """Return argmin_u ½‖u − coef‖² + step·penalty(u)."""
        norms = self.norms(coef)
        left = (1 - step * lam * self.l1 / norms).where(norms > 0, 0.0).clamp_min(0)
        return coef * (left / (1 + step * lam * self.l2))[self.numbers, None]

    def distances(self, coef: Tensor, gradient: Tensor, lam: float) -> Tensor:
        """Return dist(−gradient, ∂penalty) of each group: 0 where it is stationary."""
        norms = self.norms(coef)
        slope = lam * ((self.l1 / norms).where(norms > 0, 0.0) + self.l2)
        away = self.norms(gradient + coef * slope[self.numbers, None])
        return (away - (lam * self.l1).where(norms == 0, 0.0)).clamp_min(0)
