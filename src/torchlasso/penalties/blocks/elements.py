"""Single weights as blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchlasso.penalties.blocks.base import Blocks, Rebuild, register
from torchlasso.penalties.magnitudes import computed, sign, with_phase


@register("elements")
@dataclass(frozen=True)
class Elements(Blocks):
    """Single weights: r = |w_i|, of the shape of w."""

    single: ClassVar[bool] = True
    stable: ClassVar[bool] = True

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        return computed(w).abs(), lambda r: with_phase(r, w).to(w.dtype)

    def sizes_in(self, tensors: Sequence[Tensor]) -> list[list[tuple[int, int | Tensor]]]:
        return [[(i, 1)] for i in range(len(tensors))]

    def of_any(self, mask: Tensor) -> Tensor:
        return mask

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        w, grad = computed(w), computed(grad)
        slope = dphi(w.abs())
        # the subdifferential is {φ′(r) sign(w)} where w ≠ 0 and [−φ′(0+), φ′(0+)] where w = 0
        return torch.where(w == 0, (grad.abs() - slope).clamp_min(0), (grad + slope * sign(w)).abs())

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        return computed(w).reshape(-1, 1), lambda rows: rows.reshape(w.shape).to(w.dtype)

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return tuple(range(w.dim()))
