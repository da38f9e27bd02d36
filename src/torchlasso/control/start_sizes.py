"""The size at which the weights of a tensor start, and a λ in proportion where it is far above the usual one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import whole
from torchlasso.penalties import Penalty
from torchlasso.selection import TABLES, Group

# The keys of a group, each with a number for each parameter: the factors on λ and on θ of a reweighting, and the
# factors on λ that protection, or a removal of units, changes.
SIZES, SCALES, FULL_SCALES = "sizes", "lam_scales", "full_scales"
# Weights start at √(1/(3·fan-in)) in torch's layers, and at 1 to 3 times that by the initialisations of torch.nn.init.
UNUSUAL = 3.0


def relative_size(w: Tensor) -> float:
    """Return the root mean square of a tensor relative to that of torch's layers with as many inputs, √(1/(3·fan-in)).

    Examples:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> round(relative_size(torch.nn.Linear(100, 200).weight), 2), round(relative_size(torch.randn(1000, 100)), 1)
        (1.0, 17.3)
    """
    if w.dim() < 2 or not w.numel():
        return 1.0
    # positions, (1, number, size), are read one by one, as the rows of a matrix are
    fan_in = w.shape[-1] if w.shape[0] == 1 else w.numel() // w.shape[0]
    return _size([w]) * math.sqrt(3 * fan_in)


def weigh_large_(groups: Sequence[tuple[Group, Penalty]]) -> None:
    """Make λ of tensors whose weights start unusually large as much larger, in groups that have no sizes yet.

    A target in the latent form compares how far weights are above their thresholds, in all tensors, and a step is as
    long in all of them. An ``nn.Embedding`` starts at 1, where a layer of 128 inputs starts at 0.05. In a training too
    short to move weights by 1 every layer behind the embedding would go, and words that hardly occur would stay.
    """
    new = [group for group, penalty in groups if SIZES not in group and not penalty.over.joint]
    if not new:
        return
    others = _size([p for group, _ in groups for p, is_table in _with_kind(group) if not is_table])
    for group in new:
        sizes = group[SIZES] = [_factor(p, is_table, others) for p, is_table in _with_kind(group)]
        if any(size != 1 for size in sizes):
            full = group.get(FULL_SCALES) or [1.0] * len(sizes)
            group[FULL_SCALES] = [scale * size for scale, size in zip(full, sizes, strict=True)]
            group[SCALES] = [scale * size for scale, size in zip(group[SCALES], sizes, strict=True)]


def _with_kind(group: Group) -> list[tuple[Tensor, bool]]:
    """Return the parameters of a group, each with whether it is a table of embeddings."""
    return list(zip(group["params"], group.get(TABLES) or [False] * len(group["params"]), strict=True))


def _factor(p: Tensor, is_table: bool, others: float) -> float:
    """Return the factor on λ of a parameter, given the size of the weights that are in no table."""
    if is_table and others:  # a row has gradients only where it is read, so that its start counts for more
        size = max(1.0, _size([p]) / others)
    else:
        size = relative_size(p)
        size = size if size > UNUSUAL else 1.0
    return size if math.isfinite(size) else 1.0


def _size(tensors: Sequence[Tensor]) -> float:
    """Return the root mean square of the numbers in some tensors; 0 if they have none."""
    known = [w for w in tensors if not w.is_meta]
    count = sum(w.numel() for w in known)
    return (
        math.sqrt(sum(float(whole(w.detach()).abs().double().square().sum()) for w in known) / count) if count else 0.0
    )
