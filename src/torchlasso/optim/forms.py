"""The forms of a proximal optimizer: what a step does after the update of torch's optimizer.

- *proximal*: w ← prox_{τλΩ}(w), with τ in the metric of the optimizer. The default.
- *latent*: dual averaging. The updates add up in latent weights z, the thresholds in a number h, and w is the prox of
  the one under the other.
- *held*: what is zero stays zero, and the rest moves freely. Controllers choose it for the end of a training
  (:class:`torchlasso.Hold`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchlasso._core.specs import unknown
from torchlasso.optim.buckets import Bucket
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.fused.updates import Held, Latent, LatentReweighted, Update
from torchlasso.optim.metrics import Metric
from torchlasso.optim.unseen import State
from torchlasso.penalties import Penalty, Separable
from torchlasso.penalties.blocks import Blocks, Strength
from torchlasso.penalties.cut import Cut, cut_prox
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import Group

Weights = Tensor | Reweighting
# What the latent form keeps in the state of a parameter.
LATENT, THRESHOLD = "latent", "threshold"


@dataclass(frozen=True)
class Updated:
    """The parameters of a group after the update of torch's optimizer.

    Attributes:
        group: of the optimizer.
        penalty: of the group.
        length_of: the index of a parameter ↦ the length of its update (:meth:`Form.length`); None where it had none.
        before: copies of parameters as they were before the update, in a form that needs them.
        states: of the optimizer.
        weights: the factors on λ of the blocks of some parameters; in the latent form also the function of them.
    """

    group: Group
    penalty: Penalty
    length_of: Callable[[int], Strength | None]
    before: Mapping[Tensor, Tensor]
    states: dict[Tensor, dict[str, Any]]
    weights: Mapping[Tensor, Any]


class Form(ABC):
    """The part of a step that follows the update of torch's optimizer. It has no state of its own.

    Attributes:
        keeps_before: whether :meth:`finish_` needs the weights as they were before the update.
    """

    keeps_before: ClassVar[bool] = True

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        """Return the length of an update, by which λ is multiplied."""
        return 0.0

    @abstractmethod
    def finish_(self, updated: Updated) -> None:
        """Finish the step of a group, in place."""

    @abstractmethod
    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        """Return the bucket and the update that make a kernel do the whole step; None where none can.

        Args:
            bucket: of parameters.
            update: of torch's optimizer.
            metric: of the optimizer.
            states: of the optimizer.
            weights: the factors on λ of the blocks of each member.
        """

    def launched_(self, group: Group, bucket: Bucket, states: Mapping[Tensor, dict[str, Any]]) -> None:  # noqa: B027
        """Keep what the kernel of a bucket did not write: for most forms nothing."""


class ProximalForm(Form):
    """w ← prox_{τλΩ}(w), τ how far the update moves a weight under a constant gradient of 1."""

    keeps_before: ClassVar[bool] = False

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        return metric.step_size(options, state, gain)

    def finish_(self, updated: Updated) -> None:
        group, penalty = updated.group, updated.penalty
        if not group["lam"]:
            return
        over, prox, lam = penalty.over, penalty.as_view().prox, float(group["lam"])
        columns = (range(len(group["params"])), group["params"], [lam * scale for scale in group["lam_scales"]])
        for members, params, lams in zip(*map(over.together, columns), strict=True):
            steps = over.steps(params, [updated.length_of(i) for i in members])
            strengths = over.strengths(params, lams, updated.weights.get(params[0]))
            new = []
            for w, strength, step in zip(over.views(params), strengths, steps, strict=True):
                if step is not None and (isinstance(strength, Tensor) or strength):
                    w = prox(w, strength, step)
                new.append(w)
            over.put_(params, new)

    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        return bucket, update


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


class HeldForm(Form):
    """w ← 0 in the blocks that were zero before the update; λ has no part in it."""

    def finish_(self, updated: Updated) -> None:
        over, each = updated.penalty.over, updated.penalty.as_view()
        for params in over.together(updated.group["params"]):
            before = over.views([updated.before.get(p, p) for p in params])
            kept = [each.alive(view != 0) for view in before]
            new = [torch.where(some, view, 0.0) for some, view in zip(kept, over.views(params), strict=True)]
            over.put_(params, new)
        members = [i for i in range(len(updated.group["params"])) if updated.length_of(i) is not None]
        self._forget_latents(updated.group, members, updated.states)

    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        return (replace(bucket, penalty=None, lam=0.0), Held(inner=update)) if is_elementwise(bucket.penalty) else None

    def launched_(self, group: Group, bucket: Bucket, states: Mapping[Tensor, dict[str, Any]]) -> None:
        self._forget_latents(group, bucket.members, states)

    def _forget_latents(self, group: Group, members: Sequence[int], states: Mapping[Tensor, dict[str, Any]]) -> None:
        for i in members:
            group["thresholds"][i] = 0.0
            for name in (LATENT, THRESHOLD):
                states[group["params"][i]].pop(name, None)


LATENT_FORM = LatentForm()
FORMS: Mapping[str, Form] = {"proximal": ProximalForm(), "latent": LATENT_FORM}
_HELD = HeldForm()


def form_of(group: Group) -> Form:
    """Return the form of a group's next step."""
    return _HELD if group["held"] else FORMS[group["form"]]


def check_form(group: Group, penalty: Penalty | None, metric: Metric) -> None:
    """Raise ``ValueError`` unless the form that a group asks for is known and sound for its penalty."""
    form = group["form"]
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if form == "latent" and penalty is not None:
        if not penalty.convex:
            raise ValueError(
                f"form='latent' adds up the steps of a convex penalty, and {penalty} is not convex: use L1 with "
                "torchlasso.Reweighted, whose large weights are not shrunk either"
            )
        metric.check_latent()


def factors_of(rule: Reweighting, over: Blocks, tensors: Sequence[Tensor]) -> Tensor:
    """Return the factors on λ of the blocks of a set of tensors, view after view."""
    found = [rule.of(over.as_view(), view) for view in over.views(tensors)]
    return found[0] if len(found) == 1 else torch.cat(found)
