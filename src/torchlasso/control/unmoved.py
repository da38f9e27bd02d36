"""The weights that count as left when a search starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchlasso.distributed.sharding import local, totals_over_shards
from torchlasso.optim import Proximal


def left_at_start(optimizer: Proximal, params: Sequence[Tensor]) -> list[Tensor]:
    """Return the weights of parameters, of this process's shards, with random numbers in layers that start at zero.

    The zeros of such a layer were not chosen, and its first steps end them. If they counted as gone, a cut would take
    as many weights again in the first steps, before anything is known about them. A layer that the optimizer has moved
    keeps its zeros, and so does one with any weight other than zero.

    Examples:
        >>> import torchlasso as tl
        >>> params = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.tensor([0.0, 2.0]))]
        >>> optimizer = tl.ProxAdam(params, lr=0.1, penalty=tl.L1(), lam=0.1)
        >>> [int(w.count_nonzero()) for w in left_at_start(optimizer, params)]
        [3, 1]
    """
    weights = [local(p.detach()) for p in params]
    counts = totals_over_shards(params, [int(w.count_nonzero()) for w in weights])
    rows = zip(params, weights, counts, strict=True)
    return [w if count or optimizer.state.get(p) else _random_like(w) for p, w, count in rows]


def _random_like(w: Tensor) -> Tensor:
    """Return random numbers in the shape of a tensor, always the same, without a change of torch's generator."""
    return torch.randn(w.shape, generator=torch.Generator().manual_seed(0)).to(w)
