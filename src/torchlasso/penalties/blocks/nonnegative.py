"""Single weights that may not be negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchlasso.penalties.blocks.base import Rebuild, register
from torchlasso.penalties.blocks.elements import Elements
from torchlasso.penalties.magnitudes import computed


@register("nonnegative")
@dataclass(frozen=True)
class NonNegative(Elements):
    """Single weights that are zero or above: Ω is infinite if one is below, and the prox of L1 is max(w − τλ, 0).

    L1 over these is the non-negative lasso. Its certificate has one side: a weight is zero if its gradient is at
    least −λ. Weights that begin below zero become zero with the first step. While λ is zero, an optimizer has no
    penalty, and no constraint either.

    Examples:
        >>> import torchlasso as tl
        >>> penalty = tl.L1(over=tl.NonNegative())
        >>> penalty.prox(torch.tensor([3.0, 0.5, -2.0]), lam=1.0, step=1.0)
        tensor([2., 0., 0.])
        >>> penalty.subdiff_distance(torch.zeros(3), torch.tensor([-1.5, -0.5, 4.0]), lam=1.0)
        tensor([0.5000, 0.0000, 0.0000])

    Source: Efron, Hastie, Johnstone and Tibshirani 2004 (positive lasso).
    """

    symmetric: ClassVar[bool] = False

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        z = computed(w)
        return torch.where(z.isnan(), z, z.clamp_min(0.0)), lambda r: (r + 0.0).to(w.dtype)

    def forbidden(self, w: Tensor) -> Tensor:
        return w < 0

    def pulls(self, grad: Tensor) -> Tensor:
        return self.decompose(-grad)[0]

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        w, grad = computed(w), computed(grad)
        slope = dphi(w.clamp_min(0.0))
        # the subdifferential is φ′(r) where w > 0, (−∞, φ′(0+)] where w = 0, and empty below
        at_zero = (-grad - slope).clamp_min(0)
        return torch.where(w == 0, at_zero, torch.where(w < 0, torch.inf, (grad + slope).abs()))
