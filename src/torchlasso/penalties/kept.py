"""Counts of the weights that a penalty keeps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import local, shared_like, totals_over_shards
from torchlasso.penalties.base import Penalty


def count_kept(penalty: Penalty, params: Sequence[Tensor], weights: Sequence[Tensor]) -> list[int]:
    """Count the weights of each parameter that the penalty keeps (:meth:`Penalty.alive`); every process has to do it.

    Args:
        penalty: of the parameters.
        params: those of one or more sets, plain or sharded.
        weights: in their place, the shards of this process.

    Examples:
        >>> import torch, torchlasso as tl
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> count_kept(tl.L1(), [w], [w]), count_kept(tl.L1(over=tl.Rows()), [w], [w])
        ([1], [2])
    """
    over, each = penalty.over, penalty.as_view()
    marked = [shared_like(p, w != 0) for p, w in zip(params, weights, strict=True)]
    over.put_(marked, [each.alive(view) for view in over.views(marked)])
    return totals_over_shards(marked, [int(local(mask).count_nonzero()) for mask in marked])
