"""Single weights, of which some of each output are not penalised: constant fan-in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import is_number, shown
from torchlasso.penalties.blocks.base import Blocks, Rebuild, need, need_whole, register
from torchlasso.penalties.blocks.elements import Elements


@register("fan-in")
@dataclass(frozen=True)
class FanIn(Elements):
    """Single weights, of which the largest of each output are not penalised: a constant fan-in.

    Every neuron or filter ends with the same number of weights, n = ⌈share·inputs⌉, with inputs the number of weights
    of one output. Under L1 this is the trimmed lasso of each output, λ times the sum of all but its n largest |w_i|:
    the weights beyond the n become exact zeros as λ rises, and those that stay are not shrunk. Which ones are spared is
    part of each prox, as in :class:`NM`.

    No λ makes w = 0 stationary, since n weights of each output are free: ``lambda_max`` is infinite. The certificate
    uses the limiting subdifferential, as the penalty is not convex.

    Bertsimas, Copenhaver and Mazumder 2017 (trimmed lasso); Lasby et al. 2024 (constant fan-in, as accurate as any
    pattern of zeros, and of one length for each output).

    Args:
        share: the share of the weights of each output that stay, above 0 and below 1; one weight at least.
        dim: the dimension of the outputs: 0 for linear layers and convolutions. ``param_groups`` reads it from
            transposed convolutions, where it is 1.

    Raises:
        ValueError: the share is not between 0 and 1, or a tensor has one dimension.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.tensor([[3.0, -0.5, 2.0, 1.5], [0.1, 0.4, 0.3, -0.2]])
        >>> tl.L1(over=FanIn(0.5)).prox(w, lam=1.0, step=1.0)
        tensor([[3.0000, 0.0000, 2.0000, 0.5000],
                [0.0000, 0.4000, 0.3000, 0.0000]])
    """

    stable: ClassVar[bool] = False
    spares: ClassVar[bool] = True
    share: float = 0.1
    dim: int = 0

    def __post_init__(self) -> None:
        if not is_number(self.share) or not 0 < self.share < 1:
            raise ValueError(f"FanIn: share must be a number above 0 and below 1; got {shown(self.share)}")
        need_whole(self, 0, dim=self.dim)

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, max(2, self.dim + 1))
        return super().decompose(w)

    def spared(self, cost: Tensor) -> Tensor:
        by_output = cost.movedim(self.dim, 0)
        rows = by_output.flatten(1)
        # NaN is not spared, so that it stays visible
        largest = rows.nan_to_num(nan=-torch.inf, posinf=torch.inf).topk(self._kept(rows.shape[1]), dim=1).indices
        found = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, largest, True) & ~rows.isnan()
        return found.reshape(by_output.shape).movedim(0, self.dim)

    def _kept(self, inputs: int) -> int:
        return min(inputs, math.ceil(round(self.share * inputs, 9)))  # 0.1·30 is a little more than 3

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise ValueError(f"{self} has no groups: use it with a penalty on single weights, such as L1")

    def fit(self, module: nn.Module, name: str) -> Blocks:
        transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
        return replace(self, dim=1) if transposed else self

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (self.dim,)
