"""A penalty over blocks that reach over several parameters, in parts: a matrix for each family of such blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import like_shards, total
from torchlasso.penalties.base import Penalty, Strength
from torchlasso.penalties.blocks import Rows
from torchlasso.penalties.joint import Joint


def joint_blocks(penalty: Penalty | None) -> Joint | None:
    """The blocks of a penalty, if they reach over several parameters.

    >>> import torchlasso as tl
    >>> joint_blocks(tl.L1(over=tl.Rows())) is None
    True
    """
    over = None if penalty is None else vars(penalty).get("over")
    return over if isinstance(over, Joint) else None


def over_rows(penalty: Any, over: Joint) -> Penalty:
    """The penalty of a family's matrix, whose rows are the blocks."""
    rows: Penalty = replace(penalty, over=Rows(weighted=over.weighted))
    return rows


def factors(over: Joint, tensors: Sequence[Tensor], scales: Sequence[float], weights: Tensor | None) -> list[Strength]:
    """Return the factor on λ for each family: a number, or one for each block.

    Args:
        over: the blocks.
        tensors: their parameters.
        scales: a number for each of these; that of the largest part of a family holds for it.
        weights: (n_blocks,) one for each block, family after family.
    """
    largest = [max(pieces, key=lambda piece: piece.size(tensors[piece.tensor])) for pieces in over.families]
    own = over.scales or [1.0] * len(largest)
    found: list[Strength] = [scales[piece.tensor] * scale for piece, scale in zip(largest, own, strict=True)]
    if weights is None:
        return found
    parts = torch.split(weights, [len(piece.indices) for piece in largest])
    return [scale * part for scale, part in zip(found, parts, strict=True)]


def count_alive(penalty: Penalty, params: Sequence[Tensor], masks: Sequence[Tensor]) -> list[int]:
    """Count the weights of each parameter that a penalty keeps (:meth:`Penalty.alive`).

    Args:
        penalty: of the parameters, which are those of one group.
        params: the parameters, plain or sharded.
        masks: which of their weights are not zero, of this process's shard.
    """
    over = joint_blocks(penalty)
    if over is not None:
        kept = [mask.clone() for mask in masks]
        rows = [row.any(dim=1, keepdim=True).expand_as(row) for row in over.gather(masks)]
        over.put_(kept, rows)
        return [int(mask.sum()) for mask in kept]
    counts = []
    for p, mask in zip(params, masks, strict=True):
        if penalty.cuts(p):  # a block is of several shards
            counts.append(int(penalty.alive(like_shards(p, mask)).sum()))
        else:
            counts.append(int(total(p, penalty.alive(mask).sum())))
    return counts


def prox_together_(
    penalty: Penalty, over: Joint, tensors: Sequence[Tensor], steps: Sequence[float | Tensor], lams: Sequence[Strength]
) -> None:
    """The prox of blocks that reach over several tensors, in place.

    Args:
        penalty, over: of the blocks.
        tensors: the parameters.
        steps: of each of them, a number or a tensor like it.
        lams: λ of each family, or of each of its blocks; where it is the number 0, nothing is done.
    """
    rows = over_rows(penalty, over)
    alike = not any(isinstance(step, Tensor) or step != steps[0] for step in steps)
    if alike:
        parts = [steps[0]] * len(over.families)
    else:
        parts = [*over.gather([torch.zeros_like(p) + step for p, step in zip(tensors, steps, strict=True)])]
    new = []
    for z, step, lam in zip(over.gather(tensors), parts, lams, strict=True):
        idle = not isinstance(lam, Tensor) and not lam
        new.append(z if idle else rows.prox(z, lam, step))
    over.put_(tensors, new)
