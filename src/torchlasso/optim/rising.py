"""The weights in the latent form that thresholds leave as they rise: prepared once for many trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded, local, totals_over_shards, whole
from torchlasso.optim.base import Proximal
from torchlasso.optim.forms import LATENT_FORM
from torchlasso.optim.latent_form import LatentSet
from torchlasso.optim.latents import latent_weights, updated_in
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.penalties.kept import count_kept
from torchlasso.selection import Group


class Rise:
    """The weights of a group in the latent form as its thresholds rise with a factor.

    Where the prox has a closed form for it, each block has a critical factor, from which on it is zero. These are
    computed once, and a trial compares with them. Otherwise each trial computes the weights anew; that is
    :attr:`reference`, by which the critical factors are tested.

    Args:
        penalty: of the group.
        params: of the group.
        reference: the factor ↦ the weights of each parameter.
        sets: those of the group.
        critical: (magnitudes, thresholds so far, growth, number of the parameter) of a view ↦ its critical
            factors; the magnitudes are in units of the thresholds, and may be written to.
    """

    def __init__(
        self,
        penalty: Penalty,
        params: Sequence[Tensor],
        reference: Callable[[float], list[Tensor]],
        sets: Sequence[LatentSet],
        critical: Callable[[Tensor, Strength, Strength, int], Tensor],
    ) -> None:
        self.penalty, self.params, self.reference = penalty, list(params), reference
        prepared = [_Prepared.prepared(penalty, some, critical) for some in sets]
        self._sets = [some for some in prepared if some is not None]
        self.is_prepared = len(self._sets) == len(prepared)

    def at(self, factor: float) -> Trial:
        """Return the weights under a factor."""
        return Trial(self, factor, self._kept(factor))

    @torch.no_grad()
    def _kept(self, factor: float) -> list[int]:
        """Count the weights of each parameter that the penalty keeps; every process has to do it."""
        if not self.is_prepared:
            return count_kept(self.penalty, self.params, [local(w) for w in self.reference(factor)])
        found = {p: count for some in self._sets for p, count in some.kept(factor)}
        counts = [found[p] for p in self.params]
        return totals_over_shards(self.params, counts) if self.penalty.over.single else counts

    @torch.no_grad()
    def live(self, factor: float) -> list[int] | None:
        """Count the live blocks of each set at its first parameter; None where each trial computes the weights."""
        if not self.is_prepared or any_sharded(self.params):
            return None
        found = {some.some.params[0]: some.live(factor) for some in self._sets}
        return [found.get(p, 0) for p in self.params]

    @torch.no_grad()
    def weights(self, factor: float) -> list[Tensor]:
        """Return weights of each parameter, of this process's shard, that are zero where those of the factor are."""
        if not self.is_prepared or any_sharded(self.params):
            return [local(w) for w in self.reference(factor)]
        found = {p: w for some in self._sets for p, w in some.weights(factor)}
        return [found[p] for p in self.params]


@dataclass(frozen=True)
class Trial:
    """The weights of a group under one factor.

    Attributes:
        rise: of the group.
        factor: the factor.
        kept: the number of weights that the penalty keeps of each parameter.
    """

    rise: Rise
    factor: float
    kept: list[int]

    @property
    def params(self) -> list[Tensor]:
        """The parameters of the group."""
        return self.rise.params

    @property
    def live(self) -> list[int] | None:
        """The number of live blocks; see :meth:`Rise.live`."""
        return self.rise.live(self.factor)

    def weights(self) -> list[Tensor]:
        """Return weights of each parameter, of this process's shard, that are zero where those of the factor are."""
        return self.rise.weights(self.factor)


class _Prepared:
    """The blocks of one set of parameters, with their critical factors.

    Args:
        penalty: of the group.
        some: the set.
        views: those of its latent weights; of single weights the shards of this process.
        critical: the factors of each view.
    """

    def __init__(self, penalty: Penalty, some: LatentSet, views: list[Tensor], critical: list[Tensor]) -> None:
        self.over, self.some, self.views, self.critical = penalty.over, some, views, critical
        self.sizes = self.over.sizes_in(some.params if self.over.joint else views)
        self.outside = self._outside() if self.over.joint else [0] * len(some.params)

    @classmethod
    @torch.no_grad()
    def prepared(
        cls, penalty: Penalty, some: LatentSet, critical: Callable[[Tensor, Strength, Strength, int], Tensor]
    ) -> _Prepared | None:
        """Return the blocks of a set; None where the penalty has no closed form."""
        over, each = penalty.over, penalty.as_view()
        part: Callable[[Any], Any] = local if over.single else whole  # blocks may be cut by the sharding
        views = [part(view.detach()) for view in over.views(some.latents)]
        found = []
        for view, h, more, member in zip(views, some.thresholds, some.growth, some.owners_of(over), strict=True):
            magnitudes = each.zero_from(view)
            if magnitudes is None:
                return None
            found.append(critical(magnitudes, part(h), part(more), member))
        return cls(penalty, some, views, found)

    def kept(self, factor: float) -> list[tuple[Tensor, int]]:
        """Count the weights of each parameter that are kept; of single weights those of this process's shard."""
        counts = list(self.outside)
        for critical, sizes in zip(self.critical, self.sizes, strict=True):
            zero = critical <= factor  # what is NaN stays
            alive = zero.numel() - int(zero.count_nonzero())
            for i, size in sizes:
                counts[i] += int((~zero * size).sum()) if isinstance(size, Tensor) else alive * size
        return list(zip(self.some.params, counts, strict=True))

    def live(self, factor: float) -> int:
        return sum(critical.numel() - int((critical <= factor).count_nonzero()) for critical in self.critical)

    def weights(self, factor: float) -> list[tuple[Tensor, Tensor]]:
        each, new = self.over.as_view(), []
        for view, critical in zip(self.views, self.critical, strict=True):
            rows, restore = each.rows(view)
            new.append(restore(rows.masked_fill((critical <= factor).reshape(-1, 1), 0.0)))
        targets = [p.detach().clone() for p in self.some.params]
        self.over.put_(targets, new)
        return list(zip(self.some.params, targets, strict=True))

    def _outside(self) -> list[int]:
        """Count the weights that are not zero and belong to no block."""
        others = [p.detach() != 0 for p in self.some.params]
        self.over.put_(others, [torch.zeros_like(view) for view in self.views])
        return [int(mask.count_nonzero()) for mask in others]


def growing(optimizer: Proximal, group: Group, lam: float) -> Rise:
    """Return the weights under the thresholds max(1, f)·(h + min(1, f)·g) for any factor f.

    Args:
        optimizer: that has the group.
        group: in the latent form.
        lam: λ under which the present thresholds h grow by g, in an update of the length of the last one.
    """

    def reference(factor: float) -> list[Tensor]:
        return latent_weights(optimizer, group, lam=min(1.0, factor) * lam, cut=max(1.0, factor))

    def critical(r: Tensor, h: Strength, more: Strength, member: int) -> Tensor:
        # r / (h + g) where that is above 1, and (r − h) / g where it is not
        above = r / _above_zero(h + more, r)
        below = r.sub_(h).div_(_above_zero(more, r))
        return below.clamp_(0, 1).mul_(above.clamp_(min=1))

    updated = updated_in(optimizer, group)
    return Rise(updated.penalty, group["params"], reference, list(LATENT_FORM.sets(updated, lam)), critical)


def rescaled(optimizer: Proximal, group: Group, caps: Mapping[Tensor, float]) -> Rise:
    """Return the weights under the present thresholds times min(f, cap) for any factor f.

    Args:
        optimizer: that has the group.
        group: in the latent form.
        caps: the factors of parameters that are not to be exceeded; of joint blocks, of the one whose λ is theirs.
    """

    def reference(factor: float) -> list[Tensor]:
        return latent_weights(optimizer, group, factors_below(group, factor, caps), cut=max(1.0, factor))

    def critical(r: Tensor, h: Strength, more: Strength, member: int) -> Tensor:
        found = r / _above_zero(h, r)
        return found.masked_fill_(found > caps.get(group["params"][member], math.inf), math.inf)

    updated = updated_in(optimizer, group)
    return Rise(updated.penalty, group["params"], reference, list(LATENT_FORM.sets(updated)), critical)


def _above_zero(thresholds: Strength, r: Tensor) -> Strength:
    """Return thresholds that magnitudes can be divided by, so that 0 / 0 is 0."""
    tiny = torch.finfo(r.dtype).tiny
    return thresholds.clamp_min(tiny) if isinstance(thresholds, Tensor) else max(thresholds, tiny)


def factors_below(group: Group, factor: float, caps: Mapping[Tensor, float]) -> list[float]:
    """Return min(factor, cap) for each parameter of a group, over what the cut has of it: max(1, factor)."""
    return [min(factor, caps.get(p, math.inf)) / max(1.0, factor) for p in group["params"]]
