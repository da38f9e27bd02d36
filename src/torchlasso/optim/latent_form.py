"""The latent form of a step: dual averaging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim.buckets import Bucket
from torchlasso.optim.form import Form, Updated, Weights
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.fused.updates import Latent, LatentReweighted, Update
from torchlasso.optim.metrics import Metric
from torchlasso.optim.unseen import State
from torchlasso.penalties import Separable
from torchlasso.penalties.blocks import Blocks, Strength
from torchlasso.penalties.cut import Cut, cut_prox
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import Group

# The names of its tensors in the state of a parameter.
LATENT, THRESHOLD = "latent", "threshold"


class LatentForm(Form):
    """z ← z + the update, h ← h + the length of the update·λ, w ← prox_{hΩ}(z)."""

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        return metric.reach(options, state, gain)

    def finish_(self, updated: Updated) -> None:
        group, over, each = updated.group, updated.penalty.over, updated.penalty.as_view()
        for members, params in zip(*map(over.together, (range(len(group["params"])), group["params"])), strict=True):
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
        for members, params, latents, strengths in self.sets(updated, factors):
            pairs = zip(updated.penalty.over.views(latents), strengths, strict=True)
            new = [cut_prox(each, z, h, group["cut"]) for z, h in pairs]
            targets = [p if p is not z else p.clone() for p, z in zip(params, latents, strict=True)]
            updated.penalty.over.put_(targets, new)
            for i, p in zip(members, params, strict=True):
                group["thresholds"][i] *= factors[members[0]]
                if THRESHOLD in updated.states.get(p, ()):
                    updated.states[p][THRESHOLD] *= factors[members[0]]

    def sets(
        self, updated: Updated, factors: Sequence[float], lam: float = 0.0
    ) -> Iterator[tuple[Sequence[int], Sequence[Tensor], list[Tensor], list[Strength]]]:
        """Yield each set of parameters that no block reaches beyond, with its latent weights and thresholds.

        Args:
            updated: a group; a parameter without latent weights stands for them itself.
            factors: by which the thresholds of each parameter are multiplied; in a set, those of the first.
            lam: what is added to them, in units of their growth in a step under λ = 1 (:attr:`Updated.length_of`).
        """
        group, over = updated.group, updated.penalty.over
        for members, params in zip(*map(over.together, (range(len(group["params"])), group["params"])), strict=True):
            latents, factor = [updated.states.get(p, {}).get(LATENT, p) for p in params], factors[members[0]]
            growth = [lam * group["lam_scales"][i] * float(updated.length_of(i) or 0.0) for i in members]
            given = updated.weights.get(params[0])
            owner = next((p for p in params if THRESHOLD in updated.states.get(p, ())), None)
            if owner is None and given is None:
                numbers = [factor * group["thresholds"][i] + more for i, more in zip(members, growth, strict=True)]
                yield members, params, latents, over.strengths(params, numbers)
                continue
            weights = self._weights(updated, params, given, owner)
            units: list[Any] = over.strengths(params, [1.0] * len(params), weights)
            kept = torch.zeros_like(weights) if owner is None else updated.states[owner][THRESHOLD]
            views = [kept] if len(units) == 1 else torch.split(kept, list(map(len, units)))
            added = over.strengths(params, growth, weights)
            yield members, params, latents, [factor * h + more for h, more in zip(views, added, strict=True)]

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
        group, over, numbers = updated.group, updated.penalty.over, updated.group["thresholds"]
        growth = [
            0.0 if length is None else float(group["lam"]) * group["lam_scales"][i] * float(length)
            for i, length in zip(members, lengths, strict=True)
        ]
        given = updated.weights.get(params[0])
        owner = next((p for p in params if THRESHOLD in updated.states.get(p, ())), None)
        if given is None and owner is None:
            for i, more in zip(members, growth, strict=True):
                numbers[i] += more
            return over.strengths(params, [numbers[i] for i in members])
        weights = self._weights(updated, params, given, owner)
        units: list[Any] = over.strengths(params, [1.0] * len(params), weights)
        if owner is None:
            owner = next(p for p, length in zip(params, lengths, strict=True) if length is not None)
            so_far = over.strengths(params, [numbers[i] for i in members])
            views = [torch.zeros_like(unit) + number for unit, number in zip(units, so_far, strict=True)]
            updated.states[owner][THRESHOLD] = views[0] if len(views) == 1 else torch.cat(views)
            for i in members:
                numbers[i] = 0.0
        kept: Tensor = updated.states[owner][THRESHOLD]
        views = [kept] if len(units) == 1 else list(torch.split(kept, list(map(len, units))))
        for view, more in zip(views, over.strengths(params, growth, weights), strict=True):
            view.add_(more)
        return [*views]

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
    found = [rule.of(over.as_view(), view) for view in over.views(tensors)]
    return found[0] if len(found) == 1 else torch.cat(found)
