"""Singular values as blocks: low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchlasso.penalties.blocks.base import Blocks, Rebuild, need, register
from torchlasso.penalties.magnitudes import computed, largest_of, norms


@register("singular-values")
@dataclass(frozen=True)
class SingularValues(Blocks):
    """Singular values of the weight as a matrix of its first dimension against the rest: low rank, not zeros.

    A singular value at most σ_max · max(rows, columns) · ε, ε the precision, counts as zero, as in
    ``torch.linalg.matrix_rank``. Only steps common to the whole tensor are possible (``ProxSGD``): under a
    per-coordinate step the prox has no closed form.
    """

    of_weights: ClassVar[bool] = False

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        u, s, vh = self._parts(w)
        return s, lambda r: ((u * r) @ vh).reshape(w.shape).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        u, s, vh = self._parts(w)
        slope = dphi(s)
        alive = s != 0
        u, vh = u * alive, vh * alive[:, None]
        residual = computed(grad).reshape(u.shape[0], -1) + (u * slope.where(alive, 0.0)) @ vh
        # ∂Ω = {U φ′(s) Vᵀ + N}: N lives outside the row and column spaces of w, with singular values up to φ′(0+)
        left = u.mH @ residual  # (k, columns)
        residual = residual - u @ left
        right = residual @ vh.mH  # (rows, k)
        tangent = torch.hypot(norms(left), norms(right.mH))
        normal = _svd(residual - right @ vh)[1]
        after = (torch.arange(len(s), device=s.device) - alive.sum()).clamp_min(0)
        return torch.where(alive, tangent, (normal[after] - slope).clamp_min(0))

    def of_any(self, mask: Tensor) -> Tensor:
        return mask  # no weight is of one singular value alone

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise ValueError(
            f"{self} has no prox under a per-coordinate step such as Adam's: use ProxSGD, or blocks of coordinates"
        )

    def _parts(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        need(self, w, 2)
        u, s, vh = _svd(computed(w).reshape(w.shape[0], -1))
        tolerance = s[:1] * (max(u.shape[0], vh.shape[1]) * torch.finfo(s.dtype).eps)
        return u, torch.where(s <= tolerance, torch.zeros_like(s), s), vh


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the thin decomposition; all of it is NaN, instead of an error, if a weight is not finite."""
    scale = largest_of(matrix.reshape(1, -1))
    finite = matrix.isfinite().all()
    u, s, vh = torch.linalg.svd(torch.where(finite, matrix / scale, 0.0), full_matrices=False)
    return torch.where(finite, u, torch.nan), torch.where(finite, s * scale[0], torch.nan), vh
