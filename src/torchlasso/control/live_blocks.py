"""The number of live blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import shared_like
from torchlasso.penalties import Penalty


def count_live(penalty: Penalty, params: Sequence[Tensor], weights: Sequence[Tensor]) -> list[int]:
    """Count the live blocks of each set of parameters, at its first one; 0 at the others.

    Args:
        penalty: of the parameters.
        params: those of a group, plain or sharded.
        weights: in their place, the shards of this process.

    Examples:
        >>> import torch, torchlasso as tl
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> count_live(tl.L1(over=tl.Rows()), [w], [w])
        [1]
    """
    over, each, found = penalty.over, penalty.as_view(), list[int]()
    for some, values in zip(over.together(params), over.together(weights), strict=True):
        marked = [shared_like(p, w != 0) for p, w in zip(some, values, strict=True)]
        live = sum(int(each.support(view.float()).count_nonzero()) for view in over.views(marked))
        found += [live, *[0] * (len(some) - 1)]
    return found


def count_all(penalty: Penalty, params: Sequence[Tensor]) -> list[int]:
    """Count all blocks of each set of parameters, at its first one; 0 at the others."""
    over, each, found = penalty.over, penalty.as_view(), list[int]()
    for some in over.together(params):
        every = sum(each.support(view).numel() for view in over.views([p.detach() for p in some]))
        found += [every, *[0] * (len(some) - 1)]
    return found
