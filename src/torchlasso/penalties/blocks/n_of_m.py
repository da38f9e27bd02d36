"""Single weights, of which some of each run are not penalised: n:m sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchlasso.penalties.blocks.base import Blocks, Rebuild, need, need_whole, register
from torchlasso.penalties.blocks.elements import Elements


@register("nm")
@dataclass(frozen=True)
class NM(Elements):
    """Single weights, of which the n largest of each m consecutive inputs are not penalised: for n:m sparsity.

    Under L1 this is the trimmed lasso of each m weights, λ times the sum of all but the n largest |w_i|: weights beyond
    the n become exact zeros as λ rises, and those that stay are not shrunk. Which ones are spared is part of each prox,
    the exact one: those that would cost most, (u − w)²/(2·step) + φ(u) at their own prox u. Under a step common to all
    they are the largest; under Adam's, which differ, it can be others. GPUs multiply by two of four at up to twice the
    speed, which :func:`torchlasso.accelerate` uses; for that the layer's inputs have to be a multiple of four.

    No λ makes w = 0 stationary, since n weights of each m are free: ``lambda_max`` is infinite. The certificate uses
    the limiting subdifferential, as the penalty is not convex.

    Bertsimas, Copenhaver and Mazumder 2017 (trimmed lasso); Mishra et al. 2021 (2:4 sparsity).

    Args:
        n: how many of each run stay; at least 1.
        m: the length of a run, above n; the last one of a row may be shorter.
        dim: the dimension of the inputs, along which runs lie: 1 for linear layers and convolutions. ``param_groups``
            reads it from transposed convolutions, where it is 0.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.tensor([[3.0, -0.5, 2.0, 1.5]])
        >>> tl.L1(over=NM(2, 4)).prox(w, lam=1.0, step=1.0)
        tensor([[3.0000, 0.0000, 2.0000, 0.5000]])
    """

    stable: ClassVar[bool] = False
    spares: ClassVar[bool] = True
    n: int = 2
    m: int = 4
    dim: int = 1

    def __post_init__(self) -> None:
        need_whole(self, 1, n=self.n, m=self.m)
        need_whole(self, 0, dim=self.dim)
        if self.n >= self.m:
            raise ValueError(f"{self}: n must be below m, or nothing is penalised")

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, self.dim + 1)
        return super().decompose(w)

    def spared(self, cost: Tensor) -> Tensor:
        runs = nn.functional.pad(cost.movedim(self.dim, -1), (0, -cost.shape[self.dim] % self.m), value=-torch.inf)
        columns = runs.reshape(-1, self.m).unbind(1)
        # NaN is not spared, so that it stays visible
        found = torch.stack([(_ahead(columns, i) < self.n) & ~columns[i].isnan() for i in range(self.m)], dim=1)
        return found.reshape(runs.shape)[..., : cost.shape[self.dim]].movedim(-1, self.dim)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise ValueError(f"{self} has no groups: use it with a penalty on single weights, such as L1")

    def fit(self, module: nn.Module, name: str) -> Blocks:
        transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
        return replace(self, dim=0) if transposed else self

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return tuple(d for d in range(w.dim()) if d != self.dim)


def _ahead(columns: Sequence[Tensor], i: int) -> Tensor:
    """Count the columns larger than column i, or as large and before it: for few columns quicker than sorting."""
    ahead = torch.zeros_like(columns[i], dtype=torch.uint8)
    for j, other in enumerate(columns):
        if j != i:
            ahead += (other >= columns[i]) if j < i else (other > columns[i])
    return ahead
