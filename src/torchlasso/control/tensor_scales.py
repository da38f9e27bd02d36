"""Tables that start large and weights that move slowly: a larger λ for them, so that a target compares all weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import whole
from torchlasso.penalties import Penalty
from torchlasso.selection import FULL_SCALES, SIZES, TABLES, Group, full_scales


def scale_tensors_(groups: Sequence[tuple[Group, Penalty]]) -> None:
    """Make λ larger where tables of embeddings start large or weights move slowly, in groups that have no sizes yet.

    A target in the latent form compares how far weights are above their thresholds, in all tensors, and a step is about
    as long as the learning rate. An ``nn.Embedding`` starts at 1, where a layer of 128 inputs starts at 0.05. In a
    training too short to move weights by 1 every layer behind the embedding would go, and words that hardly occur would
    stay. Likewise, thresholds grow by λ times the rate, so that every layer with a high rate would go and those with a
    low one stay: λ of single weights is in inverse proportion to the rate of their group. Blocks of several weights
    differ less from each other, and were not better with it.
    """
    new = [(group, penalty) for group, penalty in groups if SIZES not in group]
    if not new:
        return
    others = _size([p for group, _ in groups for p, is_table in _with_kind(group) if not is_table])
    fastest = max(map(_rate, (group for group, _ in groups)))
    for group, penalty in new:
        # a block of several tensors has one threshold
        sizes = [1.0 if penalty.over.joint else _factor(p, is_table, others) for p, is_table in _with_kind(group)]
        slow = fastest / _rate(group) if penalty.over.single and _rate(group) else 1.0
        group[SIZES] = sizes
        if slow != 1 or any(size != 1 for size in sizes):
            for key, scales in ((FULL_SCALES, full_scales(group)), ("lam_scales", group["lam_scales"])):
                group[key] = [slow * scale * size for scale, size in zip(scales, sizes, strict=True)]


def _rate(group: Group) -> float:
    """Return the learning rate of a group before any scheduler."""
    return float(group.get("initial_lr") or group["lr"])


def _with_kind(group: Group) -> list[tuple[Tensor, bool]]:
    """Return the parameters of a group, each with whether it is a table of embeddings."""
    return list(zip(group["params"], group.get(TABLES) or [False] * len(group["params"]), strict=True))


def _factor(p: Tensor, is_table: bool, others: float) -> float:
    """Return the factor on λ of a parameter, given the size of the weights that are in no table.

    Only tables have one: the weights of a trained layer may be large because they matter, as on a path.
    """
    size = _size([p]) / others if is_table and others else 1.0
    return size if 1 < size < math.inf else 1.0


def _size(tensors: Sequence[Tensor]) -> float:
    """Return the root mean square of the numbers in some tensors; 0 if they have none."""
    known = [w for w in tensors if not w.is_meta]
    count = sum(w.numel() for w in known)
    squares = sum(float(whole(w.detach()).abs().double().square().sum()) for w in known)
    return math.sqrt(squares / count) if count else 0.0
