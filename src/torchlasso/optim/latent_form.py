"""The latent form of a step: dual averaging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim.buckets import Bucket
from torchlasso.optim.form import Form, Updated, Weights
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.fused.updates import Latent, LatentReweighted, Update
from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import State
from torchlasso.penalties import Separable
from torchlasso.penalties.blocks import Blocks, Strength
from torchlasso.penalties.blocks.base import end_to_end
from torchlasso.penalties.cut import Cut, cut_prox
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import Group

# The names of its tensors in the state of a parameter.
LATENT, THRESHOLD = "latent", "threshold"
# The most that a weight may differ from the prox of its latent weight, relative to it, by rounding.
ROUNDING = 1e-4


@dataclass(frozen=True)
class LatentSet:
    """Parameters that no block reaches beyond, and the tensors that their weights follow from.

    Attributes:
        members: their indices in the group.
        params: the parameters.
        latents: their latent weights.
        thresholds: those of each view, a number or one for each block.
        growth: what is added to these in an update, likewise.
    """

    members: Sequence[int]
    params: Sequence[Tensor]
    latents: list[Tensor]
    thresholds: list[Strength]
    growth: list[Strength]

    def owners_of(self, over: Blocks) -> list[int]:
        """Return, for each view of these blocks, the index in the group of the parameter whose threshold it has."""
        return [self.members[i] for i in over.owners(self.params)]


class LatentForm(Form):
    """z ← z + the update, h ← h + the length of the update·λ, w ← prox_{hΩ}(z)."""

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        return metric.reach(options, state, gain)

    def finish_(self, updated: Updated) -> None:
        group, over, each = updated.group, updated.penalty.over, updated.penalty.as_view()
        for members, params in updated.sets():
            lengths = [updated.length_of(i) for i in members]
            if all(length is None for length in lengths):
                continue
            latents = [
                p if length is None else self._moved(p, updated) for p, length in zip(params, lengths, strict=True)
            ]
            strengths = self._grown(updated, members, params, lengths)
            new = [
                cut_prox(each, z, h, group["cut"]) if isinstance(h, Tensor) or h else z
                for z, h in zip(over.views(latents), strengths, strict=True)
            ]
            # a parameter without an update, such as a frozen one, has its part in its blocks, and stays as it is
            targets = [p.clone() if length is None else p for p, length in zip(params, lengths, strict=True)]
            over.put_(targets, new)

    def rescaled_(self, updated: Updated, factors: Sequence[float]) -> None:
        """Multiply the thresholds of a group, by a factor for each parameter, and let the weights follow."""
        group, each = updated.group, updated.penalty.as_view()
        for some in self.sets(updated):
            over = updated.penalty.over
            own = [factors[i] for i in some.owners_of(over)]
            triples = zip(over.views(some.latents), some.thresholds, own, strict=True)
            new = [cut_prox(each, z, factor * h, group["cut"]) for z, h, factor in triples]
            targets = [p if p is not z else p.clone() for p, z in zip(some.params, some.latents, strict=True)]
            over.put_(targets, new)
            for i in some.members:
                group["thresholds"][i] *= factors[i]
            if _owner(updated, some.params) is not None:  # then they are parts of its state
                for h, factor in zip(some.thresholds, own, strict=True):
                    h *= factor

    def follow_(self, updated: Updated, written: Set[Tensor]) -> None:
        """Let latent weights follow parameters that others wrote to since the last step.

        In the blocks that are not the prox of their latent weights any more, z ← w + a subgradient of hΩ at w, of which
        w is the prox.
        """
        over, each = updated.penalty.over, updated.penalty.as_view()
        for some in self.sets(updated):
            if written.isdisjoint(some.params):
                continue
            new = []
            for z, w, h in zip(over.views(some.latents), over.views(some.params), some.thresholds, strict=True):
                expected = cut_prox(each, z, h, updated.group["cut"]) if isinstance(h, Tensor) or h else z
                moved = each.alive(~torch.isclose(w, expected, rtol=ROUNDING, atol=0.0))
                with torch.enable_grad():
                    leaf = w.detach().clone().requires_grad_()
                    (slope,) = torch.autograd.grad(each.value(leaf, h), leaf)
                new.append(torch.where(moved, w + slope, z))
            over.put_([z.clone() if z is p else z for p, z in zip(some.params, some.latents, strict=True)], new)

    def sets(self, updated: Updated, lam: float = 0.0) -> Iterator[LatentSet]:
        """Yield each set of parameters that no block reaches beyond, with its latent weights and thresholds.

        Args:
            updated: a group; a parameter without latent weights stands for them itself.
            lam: the strength under which the thresholds grow, by the length of the last update.
        """
        for members, params in updated.sets():
            latents = [updated.states.get(p, {}).get(LATENT, p) for p in params]
            growth = _growth(updated.group, members, [updated.length_of(i) for i in members], lam)
            yield LatentSet(members, params, latents, *self._thresholds(updated, members, params, growth))

    def _moved(self, p: Tensor, updated: Updated) -> Tensor:
        """Move the latent weights of a parameter as its update moved it."""
        state = updated.states[p]
        if LATENT not in state:
            state[LATENT] = p.detach().clone(memory_format=torch.preserve_format)
        else:
            state[LATENT].add_(p - updated.before[p])
        latent: Tensor = state[LATENT]
        return latent

    def _grown(
        self, updated: Updated, members: Sequence[int], params: Sequence[Tensor], lengths: Sequence[Strength | None]
    ) -> list[Strength]:
        """Let the thresholds of one set of parameters grow, and return those of its views.

        They are a number for each parameter, in the group, while λ is the same for all of its blocks; else a number for
        each block, in the state of a parameter of the set.
        """
        group, numbers = updated.group, updated.group["thresholds"]
        growth = _growth(group, members, lengths, float(group["lam"]))
        owner = _owner(updated, params)
        if owner is None and updated.weights.get(params[0]) is None:
            for i, more in zip(members, growth, strict=True):
                numbers[i] += more
            return updated.penalty.over.strengths(params, [numbers[i] for i in members])
        found, added = self._thresholds(updated, members, params, growth)
        grown: list[Any] = [*found]
        for h, by in zip(grown, added, strict=True):
            h.add_(by)
        if owner is None:
            owner = next(p for p, length in zip(params, lengths, strict=True) if length is not None)
            updated.states[owner][THRESHOLD] = end_to_end(grown)
            for i in members:
                numbers[i] = 0.0
        return [*grown]

    def _thresholds(
        self, updated: Updated, members: Sequence[int], params: Sequence[Tensor], growth: Sequence[float]
    ) -> tuple[list[Strength], list[Strength]]:
        """Return the thresholds of the views of a set, and what they grow by, given that for each parameter."""
        over, given, owner = updated.penalty.over, updated.weights.get(params[0]), _owner(updated, params)
        so_far: list[Any] = over.strengths(params, [updated.group["thresholds"][i] for i in members])
        if given is None and owner is None:
            return so_far, over.strengths(params, growth)
        weights = self._weights(updated, params, given, owner)
        added = over.strengths(params, growth, weights)
        if owner is not None and len(so_far) == 1:
            return [updated.states[owner][THRESHOLD]], added
        units: list[Any] = over.strengths(params, [1.0] * len(params), weights)
        if owner is not None:
            return [*torch.split(updated.states[owner][THRESHOLD], list(map(len, units)))], added
        return [torch.zeros_like(unit) + number for unit, number in zip(units, so_far, strict=True)], added

    def _weights(self, updated: Updated, params: Sequence[Tensor], given: Any, owner: Tensor | None) -> Tensor:
        """Return the factors on λ of the blocks of a set, view after view."""
        if given is None and owner is not None:
            return torch.ones_like(updated.states[owner][THRESHOLD])
        if isinstance(given, Reweighting):
            return factors_of(given, updated.penalty.over, [updated.before.get(p, p) for p in params])
        weights: Tensor = given
        return weights

    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        growth = bucket.lam * float(metric.reach(bucket.options, {"step": bucket.age + 1}, bucket.gain))
        rule, penalty, ratio = weights[0], bucket.penalty, bucket.options["cut"]
        if ratio != 1:
            if not isinstance(penalty, Separable):
                return None
            penalty = Cut(over=penalty.over, penalty=penalty, ratio=ratio)
        if isinstance(rule, Tensor) or any(other != rule for other in weights[1:]):
            return None
        if rule is None:
            if any(THRESHOLD in states.get(p, ()) for p in bucket.options["params"]):
                return None
            threshold = bucket.threshold + growth
            return replace(bucket, lam=threshold, threshold=threshold, penalty=penalty), Latent(inner=update)
        if not is_elementwise(bucket.penalty):
            return None
        options = {**bucket.options, "growth": growth, "theta": rule.theta}
        return replace(bucket, lam=1.0, options=options, penalty=penalty), LatentReweighted(inner=update, q=rule.q)

    def launched_(self, group: Group, bucket: Bucket, states: Mapping[Tensor, dict[str, Any]]) -> None:
        for i in bucket.members:
            group["thresholds"][i] = bucket.threshold


def factors_of(rule: Reweighting, over: Blocks, tensors: Sequence[Tensor]) -> Tensor:
    """Return the factors on λ of the blocks of a set of tensors, view after view."""
    return end_to_end([rule.of(over.as_view(), view) for view in over.views(tensors)])


def _owner(updated: Updated, params: Sequence[Tensor]) -> Tensor | None:
    """Return the parameter of a set that has the thresholds of its blocks in its state, if one has."""
    return next((p for p in params if THRESHOLD in updated.states.get(p, ())), None)


def _growth(group: Group, members: Sequence[int], lengths: Sequence[Strength | None], lam: float) -> list[float]:
    """Return what the thresholds of each parameter grow by in an update."""
    pairs = zip(members, lengths, strict=True)
    return [0.0 if length is None else lam * group["lam_scales"][i] * float(length) for i, length in pairs]
