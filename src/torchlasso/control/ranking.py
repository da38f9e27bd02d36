"""The live blocks of a model in the order in which a rising λ would make them zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim import Proximal
from torchlasso.optim.controller import initial_lam
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.selection import Group

# Of the blocks that go, the number of which each is tried whether it can stay; and so many more may go in their stead.
SPARED, FURTHER = 12, 3


class Ranking:
    """The live blocks of some groups, from the one that the prox makes zero under the least λ on.

    It is the prox in the metric of the last step. Blocks that are removed by it leave the others as they are: that λ
    would shrink them too, by as much as the blocks that go, and these may be large where the penalty is flat, as MCP
    is.

    Args:
        optimizer: that has the groups.
        groups: some of its ``param_groups``, in the default form.
        allow_empty: whether all blocks of a parameter may go. Otherwise its last block is not among them.

    Attributes:
        number: of the blocks that may go. Those without a gradient may not, since no prox makes them smaller.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.1, 0.2], [0.0, 1.0]]))
        >>> optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(over=tl.Rows()), lam=1.0)
        >>> ranking = Ranking(optimizer, optimizer.param_groups, allow_empty=False)
        >>> ranking.number
        2
        >>> ranking.remove_(ranking.least(1))
        >>> w.detach()
        tensor([[3., 0.],
                [0., 0.],
                [0., 1.]])
    """

    @torch.no_grad()
    def __init__(self, optimizer: Proximal, groups: Sequence[Group], allow_empty: bool) -> None:
        self._sets = [some for group in groups for some in _sets(optimizer, group, allow_empty)]
        every = [view.thresholds for some in self._sets for view in some.views]
        self._sizes = [len(thresholds) for thresholds in every]
        thresholds = torch.cat(every) if every else torch.zeros(0)
        self.number = int(thresholds.isfinite().sum())
        self._order = thresholds.argsort(stable=True)[: self.number]
        self._blocks = len(thresholds)

    def least(self, count: int) -> Tensor:
        """Return the numbers of so many blocks that go first, from the first on."""
        return self._order[:count]

    def fewest(self, left: Callable[[Tensor], float], most: float) -> int:
        """Return the number of the first blocks that have to go so that at most so much is left; all if that is more.

        Args:
            left: blocks ↦ what is left without them; it falls as more of them go.
            most: the limit.
        """
        low, high = 0, 1  # low are too few
        while high < self.number and left(self.least(high)) > most:
            low, high = high, 2 * high
        high = min(high, self.number)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if left(self.least(middle)) <= most else (middle, high)
        return high

    def nearest(self, left: Callable[[Tensor], float], most: float, near: float) -> Tensor:
        """Return blocks that have to go so that what is left is at most a limit, and near to it.

        The last of the fewest may be a large one. So those before it are tried, from it on, whether they can stay; and
        some that would come next, whether more of the others can stay if they go.

        Args:
            left, most: see :meth:`fewest`.
            near: the distance from the limit that is near enough.
        """
        fewest = self.fewest(left, most)
        best, most_left = self.least(fewest), -math.inf
        for count in range(fewest, min(fewest + FURTHER, self.number) + 1):
            go = self.least(count)
            found = left(go)
            for block in go[: fewest - 1].flip(0)[:SPARED]:
                if most - near <= found <= most:
                    break
                others = go[go != block]
                if (more := left(others)) <= most:
                    go, found = others, more
            if most_left < found <= most:
                best, most_left = go, found
            if most - near <= most_left:
                break
        return best

    @torch.no_grad()
    def without(self, blocks: Tensor) -> dict[Tensor, Tensor]:
        """Return copies of the parameters in which these blocks are zero."""
        copies = {p: p.detach().clone() for some in self._sets for p in some.params}
        self._write(copies, blocks)
        return copies

    @torch.no_grad()
    def remove_(self, blocks: Tensor) -> None:
        """Make these blocks zero."""
        self._write({p: p for some in self._sets for p in some.params}, blocks)

    def _write(self, tensors: Mapping[Tensor, Tensor], blocks: Tensor) -> None:
        stays = torch.ones(self._blocks, dtype=torch.bool, device=blocks.device)
        stays[blocks] = False
        parts = iter(torch.split(stays, self._sizes))
        for some in self._sets:
            new = [view.only(next(parts)) for view in some.views]
            some.penalty.over.put_([tensors[p] for p in some.params], new)


class _Set:
    """A set of parameters that no block reaches beyond.

    Args:
        penalty: of the set.
        params: the parameters.
        views: those of its blocks.
    """

    def __init__(self, penalty: Penalty, params: Sequence[Tensor], views: Sequence[_View]) -> None:
        self.penalty, self.params, self.views = penalty, params, views


class _View:
    """A view of the blocks of a set, with the threshold of each.

    Attributes:
        thresholds: (n_blocks,), in units of λ; infinite for blocks that stay, and for those that are zero.
    """

    def __init__(self, penalty: Penalty, w: Tensor, strength: Strength, step: Strength | None, guard: bool) -> None:
        self.penalty, self.w = penalty, w
        live = penalty.support(w).flatten()
        if step is None:  # without a gradient no prox makes it smaller
            self.thresholds = torch.full(live.shape, torch.inf, dtype=torch.double, device=w.device)
            return
        scaled = w / step
        lengths = penalty.zero_from(scaled)
        if lengths is None:  # no formula: by the magnitudes, in the same metric
            lengths = penalty.over.decompose(scaled)[0]
        found = lengths.flatten().double() / torch.as_tensor(strength, device=w.device).double()
        found = torch.where(live, found.nan_to_num(torch.inf), torch.inf)
        if guard and bool(live.any()):
            found[int(torch.where(live, found, -1.0).argmax())] = torch.inf
        self.thresholds = found

    def only(self, stays: Tensor) -> Tensor:
        """Return the view with zero for the blocks that do not stay, given by a mask."""
        if self.penalty.over.single:
            return torch.where(stays.reshape(self.w.shape), self.w, 0.0)
        rows, restore = self.penalty.over.rows(self.w)
        return restore(torch.where(stays[:, None], rows, 0.0))


def _sets(optimizer: Proximal, group: Group, allow_empty: bool) -> list[_Set]:
    pairs = zip(optimizer.param_groups, optimizer.penalties, strict=True)
    penalty = next(penalty for other, penalty in pairs if other is group and penalty is not None)
    over, each, found, known = penalty.over, penalty.as_view(), list[_Set](), any(optimizer.state.values())
    # a rate that has fallen to 0 has no prox, and one that is alike in all groups changes no order
    options = group if group["lr"] else {**group, "lr": group.get("initial_lr", 1.0)}
    steps: list[Strength | None] = []
    for i, p in enumerate(group["params"]):
        moves = p.requires_grad and (optimizer.state.get(p) or not known)  # SGD without momentum has no state
        steps.append(_step(optimizer, options, i) if moves else None)
    lams = [initial_lam(group) * scale for scale in group["lam_scales"]]
    for params, some, own in zip(*map(over.together, (group["params"], steps, lams)), strict=True):
        guard = over.carry and not allow_empty
        weights: Any = optimizer.weights.get(params[0])  # in the default form numbers
        strengths = over.strengths(params, own, weights)
        triples = zip(over.views(params), strengths, over.steps(params, some), strict=True)
        found.append(_Set(penalty, params, [_View(each, *triple, guard) for triple in triples]))
    return found


def _step(optimizer: Proximal, options: Group, i: int) -> Strength:
    """Return the length by which blocks of a parameter are ranked: τ, or t in the normal-map form."""
    p, metric = options["params"][i], optimizer.metric
    if options["form"] == "normal-map":
        return options["reaches"][i] or 1.0
    state = optimizer.state.get(p, {})
    if metric.sees:
        if p.grad is None:
            return 1.0
        state = {**state, **metric.seen(p, options)}
    return metric.step_size(options, state, float(options["gains"][i]))
