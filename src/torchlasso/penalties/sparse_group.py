"""The sparse-group lasso, which is not a function of one magnitude per block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso._core.arguments import check_kind, is_number, shown
from torchlasso.penalties.base import Penalty, register
from torchlasso.penalties.blocks import Blocks, Filters, Strength
from torchlasso.penalties.diagonal_prox import shrink
from torchlasso.penalties.magnitudes import divide, norms


def soft(w: Tensor, threshold: Strength) -> Tensor:
    """Return sign(w)(|w| − threshold)₊."""
    return w.sign() * (w.abs() - threshold).clamp_min(0)


@register("sparse-group")
@dataclass(frozen=True, kw_only=True)
class SparseGroup(Penalty):
    """The sparse-group lasso λ(ρ‖w‖₁ + (1−ρ) Σ_g √|g| ‖w_g‖₂): few groups, and few weights in those.

    Simon, Friedman, Hastie and Tibshirani 2013.

    Args:
        over: the groups.
        l1_ratio: ρ in [0, 1], the share of the element-wise part.

    Examples:
        >>> w = torch.tensor([[3.0, 0.2], [0.3, 0.1]])
        >>> SparseGroup(over=Filters(weighted=False)).prox(w, lam=1.0, step=1.0)
        tensor([[2., 0.],
                [0., 0.]])
    """

    over: Blocks = Filters()
    l1_ratio: float = 0.5

    def __post_init__(self) -> None:
        check_kind("SparseGroup: over", self.over, Blocks, "blocks such as torchlasso.Filters()")
        if not self.over.symmetric:
            raise ValueError(f"SparseGroup: over must be groups, whose weights may have any sign; got {self.over}")
        if not is_number(self.l1_ratio) or not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio must be a number from 0 to 1; got {shown(self.l1_ratio)}")

    def value(self, w: Tensor, lam: Strength) -> Tensor:
        rows, _ = self.over.rows(w)
        each, group = self._strengths(w, lam)
        return torch.sum(each * rows.abs()) + torch.sum(group * norms(rows)[:, None])

    def prox(self, w: Tensor, lam: Strength, step: float | Tensor) -> Tensor:
        rows, restore = self.over.rows(w)
        each, group = self._strengths(w, lam)
        if isinstance(step, Tensor) and step.dim():
            step, _ = self.over.rows(step)
            return restore(shrink(soft(rows, step * each), step * group)[0])
        rows = soft(rows, step * each)
        r = norms(rows)[:, None]
        return restore(rows * divide((r - step * group).clamp_min(0), r))

    def subdiff_distance(self, w: Tensor, grad: Tensor, lam: Strength) -> Tensor:
        rows, grads = self.over.rows(w)[0], self.over.rows(grad)[0]
        each, group = self._strengths(w, lam)
        r = norms(rows)[:, None]
        pull = grads + rows.sign() * each + divide(rows, r) * group
        within = torch.where(rows == 0, soft(grads, each), pull)
        away = norms(within)
        at_zero = norms(soft(grads, each))[:, None] - group
        return torch.where(r == 0, at_zero.clamp_min(0), away[:, None])[:, 0]

    def support(self, w: Tensor) -> Tensor:
        return (self.over.rows(w)[0] != 0).any(dim=1)

    def lambda_max(self, grad: Tensor) -> Tensor:
        # The least λ with ‖soft(g, λρ)‖ ≤ λ(1−ρ)·weight in every block. The left side falls and the right side rises
        # with λ, and both bounds below are exact where ρ is 0 or 1: bisection between them.
        grads, _ = self.over.rows(grad)
        each, group = self._strengths(grad, 1.0)
        r = norms(grads)[:, None]
        high = torch.minimum(
            grads.abs().amax(dim=1, keepdim=True) / each if self.l1_ratio > 0 else torch.full_like(r, torch.inf),
            r / group if self.l1_ratio < 1 else torch.full_like(r, torch.inf),
        )
        low = torch.zeros_like(high)
        for _ in range(80):
            middle = (low + high) / 2
            zero = norms(soft(grads, middle * each))[:, None] <= middle * group
            low, high = torch.where(zero, low, middle), torch.where(zero, middle, high)
        return high.max()

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return self.over.whole_along(w)

    def _strengths(self, w: Tensor, lam: Strength) -> tuple[Strength, Strength]:
        """Return λρ and λ(1−ρ)·weight, each a number or of shape (n_blocks, 1)."""
        each, group = lam * self.l1_ratio, lam * (1 - self.l1_ratio) * self.over.weights(w)
        return tuple(s[:, None] if isinstance(s, Tensor) and s.dim() else s for s in (each, group))  # type: ignore[return-value]
