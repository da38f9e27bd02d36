"""Live blocks: their number, and a step that leaves so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import shared_like
from torchlasso.optim import Proximal
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.selection import Group


def count_live(penalty: Penalty, params: Sequence[Tensor], weights: Sequence[Tensor]) -> list[int]:
    """Count the live blocks of each set of parameters, at its first one; 0 at the others.

    Args:
        penalty: of the parameters.
        params: those of a group, plain or sharded.
        weights: in their place, the shards of this process.

    Examples:
        >>> import torchlasso as tl
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


@torch.no_grad()
def leave_(optimizer: Proximal, groups: Sequence[Group], keep: int, allow_empty: bool) -> None:
    """Make all but so many blocks of these groups zero: those that the prox would make zero under the least λ.

    It is the prox in the metric of the last step. The blocks that stay keep their values: that λ would shrink them too,
    by as much as the blocks that go, and these may be large where the penalty is flat, as MCP is.

    Args:
        optimizer: that has the groups.
        groups: some of its ``param_groups``, in the default form.
        keep: the number of blocks.
        allow_empty: whether all blocks of a parameter may go.
    """
    views = [view for group in groups for view in _views(optimizer, group, allow_empty)]
    every = torch.cat([view.thresholds for view in views])
    if int((every > 0).sum()) <= keep:
        return
    stays = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    stays[every.argsort(descending=True, stable=True)[:keep]] = True
    parts = iter(torch.split(stays, [len(view.thresholds) for view in views]))
    for group in groups:
        over = _penalty_of(optimizer, group).over
        own = iter([view for view in views if view.group is group])
        for params in over.together(group["params"]):
            over.put_(params, [next(own).only(next(parts)) for _ in over.views(params)])


class _View:
    """A view of the blocks of a group, with the threshold of each.

    Attributes:
        group: of the optimizer.
        thresholds: (n_blocks,), in units of λ; 0 for blocks that are zero.
    """

    def __init__(
        self, group: Group, penalty: Penalty, w: Tensor, strength: Strength, step: Strength | None, guard: bool
    ) -> None:
        self.group, self.penalty, self.w = group, penalty, w
        live = penalty.support(w).flatten()
        scaled = w if step is None else w / step
        lengths = penalty.zero_from(scaled)
        if lengths is None:  # no formula: by the magnitudes, in the same metric
            lengths = penalty.over.decompose(scaled)[0]
        found = lengths.flatten().double() / torch.as_tensor(strength, device=w.device).double()
        found = torch.where(live, found.nan_to_num(torch.inf).clamp_min(torch.finfo(torch.double).tiny), 0.0)
        if step is None:  # without a gradient no prox makes it smaller
            found = found.masked_fill(live, torch.inf)
        if guard and len(found) and bool(live.any()):
            found[int(found.argmax())] = torch.inf
        self.thresholds = found

    def only(self, stays: Tensor) -> Tensor:
        """Return the view with zero for the blocks that do not stay, given by a mask."""
        rows, restore = self.penalty.over.rows(self.w)
        return restore(torch.where(stays[:, None], rows, 0.0))


def _penalty_of(optimizer: Proximal, group: Group) -> Penalty:
    pairs = zip(optimizer.param_groups, optimizer.penalties, strict=True)
    return next(penalty for other, penalty in pairs if other is group and penalty is not None)


def _views(optimizer: Proximal, group: Group, allow_empty: bool) -> list[_View]:
    penalty, known = _penalty_of(optimizer, group), any(optimizer.state.values())
    over, each, found = penalty.over, penalty.as_view(), list[_View]()
    steps: list[Strength | None] = []
    for p, gain in zip(group["params"], group["gains"], strict=True):
        state = optimizer.state.get(p, {})
        moves = p.requires_grad and (state or not known)  # SGD without momentum has no state
        steps.append(optimizer.metric.step_size(group, state, float(gain)) if moves else None)
    lams = [group["lam"] * scale for scale in group["lam_scales"]]
    for params, some, own in zip(*map(over.together, (group["params"], steps, lams)), strict=True):
        guard = over.carry and not allow_empty
        weights: Any = optimizer.weights.get(params[0])  # in the default form numbers
        strengths = over.strengths(params, own, weights)
        for w, strength, step in zip(over.views(params), strengths, over.steps(params, some), strict=True):
            found.append(_View(group, each, w, strength, step, guard))
    return found
