"""A target for the share of zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from torchlasso._core.arguments import check_kind, is_number, shown
from torchlasso._core.specs import unknown
from torchlasso.control.closing import MARGIN, Closing
from torchlasso.control.least_left import count_layers, count_spared, names_of_sparing
from torchlasso.control.live_blocks import count_all, count_live
from torchlasso.control.ranking import Ranking
from torchlasso.control.steering import Steered
from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim import Proximal
from torchlasso.optim.controller import proximal_of
from torchlasso.optim.rising import Trial
from torchlasso.penalties.kept import count_kept
from torchlasso.selection import Group

SCOPES, COUNTS = ("model", "group"), ("weights", "blocks")

ROUNDING = 1e-6  # of a number of blocks that is computed from a share


class TargetSparsity(Steered):
    """A search for the λ at which training ends with a given share of exact zeros: a target instead of λ.

    The share is that of all penalised weights, or of the weights of each group. The search starts at the present λ of
    the groups, and in the scope of a model their ratios stay. Train for ``steps`` steps with a learning rate that falls
    towards the end, as it does under a cosine or a line: then the share is met within about 0.1 percentage points.

    Under a penalty of whole blocks, such as ``L1(over=Rows())``, the weights of a block count as zero when all of them
    are zero: single weights that decay until they underflow, such as the weights that read a dead unit, do not count.
    A group that is added to the optimizer later is steered with the others, from its λ at that time. A parameter that
    is frozen, or has had no gradient for a twentieth of training, does not count until it has one.

    In the latent form, λ is larger for tensors that start large: an ``nn.Embedding`` and the magnitudes of a
    ``weight_norm`` in groups of :func:`torchlasso.param_groups`, and random numbers of an unusual size for their shape,
    as from ``torch.randn``. With one λ for all, short trainings would keep them and lose the layers behind them. Where
    all of these together are at most half of the weights to be left, they keep their λ. For the same reason λ of single
    weights is in inverse proportion to the rates of the groups.

    Args:
        optimizer: the proximal optimizer.
        target: the share of zeros, above 0 and below 1; in the scope of groups also a list, one for each group.
        steps: the number of steps of the optimizer in the whole training.
        count: ``"weights"``, or ``"blocks"``: the share of the penalty's blocks, such as rows, units or features, and
            exactly so many, the nearest whole number. Then the last tenth of training holds the zeros, without λ.
        scope: ``"model"``: zeros of all groups count together; ``"group"``: each group meets the target.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its weights. Otherwise λ is lowered where hardly any are left.
        tolerance: the largest distance from the target without a warning.

    Raises:
        ValueError: the target is not between 0 and 1, or leaves less than a weight for each layer, or less than
            penalties such as those over ``NM`` and ``FanIn`` always spare; λ of a group is 0; the optimizer is a
            schedule-free one, whose averaged weights have other zeros.

    Warns:
        TargetMissed: at the end, if the share is further away than the tolerance; it says why.
        Idle: once, of a parameter that does not count, by its name.

    Examples:
        >>> import torch, torchlasso as tl
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> x = torch.randn(200, 50)
        >>> y = x[:, :5].sum(dim=1) + 0.5 * torch.randn(200)
        >>> w = torch.nn.Parameter(torch.zeros(50))
        >>> optimizer = tl.ProxAdam([w], lr=0.02, penalty=tl.L1(), lam=0.01)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        >>> control = TargetSparsity(optimizer, 0.9, steps=1000)
        >>> for _ in range(1000):
        ...     optimizer.zero_grad()
        ...     ((x @ w - y) ** 2).mean().div(2).backward()
        ...     optimizer.step()
        ...     scheduler.step()
        ...     control.step()
        >>> int((w == 0).sum())
        45
    """

    what = "the weights"

    def __init__(
        self,
        optimizer: Proximal,
        target: float | Sequence[float],
        *,
        steps: int,
        count: str = "weights",
        scope: str = "model",
        warmup: float = 0.5,
        allow_empty: bool = False,
        tolerance: float = 1e-3,
    ) -> None:
        optimizer = proximal_of(optimizer, "TargetSparsity")
        check_kind("TargetSparsity: scope", scope, str, "'model' or 'group'")
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        check_kind("TargetSparsity: count", count, str, "'weights' or 'blocks'")
        if count not in COUNTS:
            raise unknown("count", count, COUNTS)
        self.count = count
        groups = optimizer.penalised_groups()
        together = [groups] if scope == "model" else [[group] for group in groups]
        several = isinstance(target, Sequence) and not isinstance(target, str)
        targets: list[Any] = list(target) if several else [target] * len(together)  # type: ignore[arg-type]
        if len(targets) != len(together):
            raise ValueError(
                f"TargetSparsity: {len(targets)} targets for {len(together)} groups in the scope {scope!r}"
            )
        if not is_number(tolerance) or tolerance < 0:
            raise ValueError(f"TargetSparsity: tolerance must be a number of at least 0; got {shown(tolerance)}")
        for some, wanted in zip(together, targets, strict=True):
            sizes = [size for group in some for size in self._sizes_of(group)]
            _check(wanted, sum(sizes), max(count_layers(some, sizes, allow_empty), count == "blocks"), count)
            _check_spared(wanted, sum(sizes), some, count, tolerance)
        self._wanted = f"{list(map(float, targets)) if several else float(targets[0])}"
        self.scope, self.later = scope, None if several else 1 - targets[0]
        self.sizes: dict[Tensor, int] = {}  # of the full model: weights that were removed count as zeros
        self._made = 0
        if count == "blocks":
            tolerance, self.what, self.block = 0.0, "the blocks", 0.0
        super().__init__(
            optimizer,
            shares=[self._share(wanted, some) for wanted, some in zip(targets, together, strict=True)],
            steps=steps,
            warmup=warmup,
            allow_empty=allow_empty,
            tolerance=tolerance,
        )
        if count == "blocks" and not self.exact:
            self.closing = Closing(self)

    def _aims(self) -> Sequence[float]:
        if self.count == "weights":
            return self.shares
        wanted = [(round(share * of), of) for share, of in zip(self.shares, self._of(), strict=True)]
        return [
            min(1.0, (keep + max(1.0, MARGIN * keep)) / max(1, of)) for keep, of in wanted
        ]  # the rest is closed afterwards

    @property
    def described(self) -> str:
        return f"TargetSparsity({self._wanted}, count={self.count!r}, scope={self.scope!r})"

    def state_dict(self) -> dict[str, Any]:
        sizes = [self.sizes[p] for p in self.params]
        return {**super().state_dict(), "sizes": sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.sizes = dict(zip(self.params, state["sizes"], strict=True))

    def _sizes_of(self, group: Mapping[str, Any]) -> list[int]:
        """Return the number of weights of each parameter of a group, or of blocks of each set at its first one."""
        if self.count == "weights":
            return [p.numel() for p in group["params"]]
        if any_sharded(group["params"]):
            raise ValueError("TargetSparsity: count='blocks' needs whole parameters, and these are sharded")
        penalty = group["penalty"]
        if not penalty.over.of_weights:
            raise ValueError(f"TargetSparsity: the blocks of {penalty} are not weights, so they cannot be counted")
        return count_all(penalty, group["params"])

    def _share(self, target: float, groups: Sequence[Mapping[str, Any]]) -> float:
        """Return the share that is to be left; of blocks a whole number of them."""
        if self.count == "weights":
            return 1 - target
        every = sum(size for group in groups for size in self._sizes_of(group))
        return round((1 - target) * every) / every

    def _of(self) -> list[int]:
        """Return the number of all that is counted in each unit."""
        found = [0] * len(self.shares)
        for p, unit in self.unit.items():
            if unit is not None and self.counts(p):
                found[unit] += self.sizes[p]
        return found

    def beyond(self, unit: int, ranking: Ranking, most: float) -> Tensor:
        of = self._of()[unit]
        return ranking.least(round(self.left[unit] * of) - math.ceil(most * of - ROUNDING))

    def is_met(self, unit: int, left: float) -> bool:
        of = self._of()[unit]
        return not of or round(left * of) == round(self.shares[unit] * of)

    def _unit_of(self, group: Group) -> int | None:
        penalty = next(penalty for other, penalty in self._groups() if other is group)
        sizes = self._sizes_of({"params": group["params"], "penalty": penalty})
        self.sizes.update(zip(group["params"], sizes, strict=True))
        if self.scope == "model":
            return 0
        self._made += 1
        if self._made > len(self.shares):  # a group that was added later
            if self.later is None:
                self._tell(group["params"], "the group has no target of its own; it keeps its λ and does not count")
                return None
            self.shares.append(self.later)
            self.strengths.append(0.0)
            self.starts.append(1.0)
        return self._made - 1

    def _left(self, weights: Sequence[Tensor]) -> list[float]:
        found, kept = iter(weights), dict[Tensor, int]()
        for group, penalty in self._groups():
            params, own = group["params"], [next(found) for _ in group["params"]]
            count = count_kept if self.count == "weights" else count_live
            kept.update(zip(params, count(penalty, params, own), strict=True))
        return self._shares(kept)

    def left_under(self, trials: Sequence[Trial]) -> list[float]:
        if self.count == "blocks":
            counts = [trial.live for trial in trials]
            if any(count is None for count in counts):
                return super().left_under(trials)
            found = zip(trials, counts, strict=True)
            return self._shares({p: n for trial, own in found for p, n in zip(trial.params, own or [], strict=True)})
        pairs = (pair for trial in trials for pair in zip(trial.params, trial.kept, strict=True))
        return self._shares(dict(pairs))

    def _shares(self, kept: Mapping[Tensor, int]) -> list[float]:
        """Return the share that is left in each unit, given the number of weights left of each of its parameters."""
        found = [[0, 0] for _ in self.shares]
        for p, unit in self.unit.items():
            if unit is not None and self.counts(p):
                found[unit][0] += kept[p]
                found[unit][1] += self.sizes[p]
        return [count / size if size else math.nan for count, size in found]


def _check(target: Any, weights: int, layers: int, count: str) -> None:
    if not is_number(target) or not 0 < target < 1:
        hint = f"; {target:g} per cent is {target / 100:g}" if is_number(target) and 2 <= target < 100 else ""
        raise ValueError(
            f"TargetSparsity: the target is a share of zeros, above 0 and below 1; got {shown(target)}{hint}"
        )
    left = (1 - target) * weights
    if (left if count == "weights" else round(left)) < layers:
        raise ValueError(
            f"TargetSparsity: {target:.6g} of {weights:,} {count} would leave {left:.1f} of them for {layers} layers; "
            f"at most {1 - layers / weights:.6g} can be reached, or any target with allow_empty=True"
        )


def _check_spared(
    target: float, weights: int, groups: Sequence[Mapping[str, Any]], count: str, tolerance: float
) -> None:
    left, spared = (1 - target) * weights, count_spared(groups)
    if (left + tolerance * weights if count == "weights" else round(left)) < spared:
        raise ValueError(
            f"TargetSparsity: {target:.6g} of {weights:,} {count} would leave {left:.1f} of them, and "
            f"{names_of_sparing(groups)} always leaves {spared:,}; at most {1 - spared / weights:.6g} can be reached"
        )
