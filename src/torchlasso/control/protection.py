"""Protection of layers that have hardly any weights left: a λ that is lowered there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import local, totals_over_shards
from torchlasso.penalties import Penalty
from torchlasso.selection import Group, full_scales

# A layer with fewer weights than this has its λ lowered with every sample, to nothing where one or none is left; with
# more it is raised again.
FEWEST, LOWERED, RAISED, LOWEST = 4, 0.5, 1.25, 1e-4


def protect(group: Group, penalty: Penalty) -> None:
    """Lower λ of the layers of a group that have hardly any blocks left, and raise it again where there are more."""
    if not penalty.over.carry:
        return
    scales = zip(_blocks_left(penalty, group["params"]), group["lam_scales"], full_scales(group), strict=True)
    group["lam_scales"] = [_scale(*left, scale / most) * most for left, scale, most in scales]


def is_protected(group: Group) -> bool:
    """Return whether λ of a layer of a group is lowered now."""
    return any(scale < most for scale, most in zip(group["lam_scales"], full_scales(group), strict=True))


def _blocks_left(penalty: Penalty, params: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Count the live blocks of each parameter, and all its blocks. Of joint blocks, count weights."""
    if penalty.over.joint or penalty.over.single:
        counts = totals_over_shards(params, [int(local(p.detach()).count_nonzero()) for p in params])
        return list(zip(counts, map(Tensor.numel, params), strict=True))
    supports = [penalty.support(p.detach()) for p in params]
    return [(int(support.count_nonzero()), support.numel()) for support in supports]


def _scale(left: int, of: int, before: float) -> float:
    """Return the factor on λ of a layer with so many blocks left."""
    if left <= 1 < of or left == 0:
        return 0.0
    change = LOWERED if left < min(FEWEST, of) else RAISED
    return min(1.0, max(before, LOWEST) * change)
