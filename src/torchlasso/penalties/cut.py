"""A prox that also cuts off: what is only just above its threshold becomes zero, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.penalties.base import Penalty, Separable
from torchlasso.penalties.blocks import Strength


@dataclass(frozen=True, kw_only=True)
class Cut(Separable):
    """The prox of a penalty for magnitudes above ``ratio`` times its threshold, and zero for the others.

    It is a part of the latent form's steps, and no penalty of its own.

    Args:
        penalty: separable, over the same blocks.
        ratio: at least 1, where it changes nothing.

    Examples:
        >>> import torchlasso as tl
        >>> Cut(penalty=tl.L1(), ratio=2.0).prox(torch.tensor([3.0, 1.5]), lam=1.0, step=1.0)
        tensor([2., 0.])
    """

    penalty: Separable
    ratio: float

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        return self.penalty.phi(r, lam)

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        return self.penalty.dphi(r, lam)

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        new = self.penalty.prox_phi(r, lam, step)
        # what is NaN stays so
        return torch.where(self.penalty.prox_phi(r, lam * self.ratio, step) == 0, 0.0, new)


def cut_prox(penalty: Penalty, z: Tensor, threshold: Strength, ratio: float) -> Tensor:
    """Return the prox of a view, with zero for the blocks that ``ratio`` times the threshold would make zero.

    Args:
        penalty: of the view, of any kind.
        z: the view.
        threshold: a number, or one for each block.
        ratio: at least 1.
    """
    new = penalty.prox(z, threshold, 1.0)
    if ratio == 1:
        return new
    kept = penalty.alive(penalty.prox(z, threshold * ratio, 1.0) != 0)
    return torch.where(kept, new, 0.0)
