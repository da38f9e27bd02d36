"""The forms of a proximal optimizer: what a step does after the update of torch's optimizer.

- *proximal*: w ← prox_{τλΩ}(w), with τ in the metric of the optimizer. The default.
- *latent*: dual averaging. The updates add up in latent weights z, the thresholds in a number h, and w is the prox of
  the one under the other.
- *normal-map*: latent weights z move by the gradient of the normal map, and w is their prox. For any optimizer.
- *held*: what is zero stays zero, and the rest moves freely. Controllers choose it for the end of a training
  (:class:`torchlasso.Hold`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchlasso._core.specs import unknown
from torchlasso.optim.buckets import Bucket
from torchlasso.optim.form import Form, Updated, Weights
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.fused.updates import Held, Update
from torchlasso.optim.latent_form import LATENT, THRESHOLD, LatentForm
from torchlasso.optim.metric import Metric
from torchlasso.optim.normal_form import OFFSET, NormalMapForm
from torchlasso.optim.unseen import State
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.selection import Group


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
            for name in (LATENT, THRESHOLD, OFFSET):
                states[group["params"][i]].pop(name, None)


LATENT_FORM, NORMAL_MAP_FORM = LatentForm(), NormalMapForm()
FORMS: Mapping[str, Form] = {"proximal": ProximalForm(), "latent": LATENT_FORM, "normal-map": NORMAL_MAP_FORM}
_HELD = HeldForm()


def form_of(group: Group) -> Form:
    """Return the form of a group's next step."""
    return _HELD if group["held"] else FORMS[group["form"]]


def check_form(group: Group, penalty: Penalty | None, metric: Metric) -> None:
    """Raise ``ValueError`` unless the form that a group asks for is known and sound for its penalty."""
    form = group["form"]
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if penalty is None:
        return
    if form != "proximal" and not penalty.convex:
        raise ValueError(
            f"form='{form}' needs a convex penalty, and {penalty} is not convex: use L1 with "
            "torchlasso.Reweighted, whose large weights are not shrunk either"
        )
    metric.check_form(form)
