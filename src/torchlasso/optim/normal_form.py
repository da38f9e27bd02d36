"""The normal-map form of a step: the zeros of the objective under an optimizer that has no metric.

The prox is taken apart from the optimizer's update. Latent weights z = w + o are what the optimizer moves, and it is
given the gradient of the normal map (Robinson 1992),

    ∇f(w) + (λ/t)·(z − w),    w = argmin_u ½‖u − z‖² + t·Ω(u),

whose second part is λ times a subgradient of Ω at w. A step ends where this is zero, which is where w is stationary for
f + λΩ, whatever the optimizer makes of a gradient: its sign, a matrix with the same singular vectors, an average of
iterates. t is a length, ten times that of the optimizer's steps: how far z can be from w.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchlasso.distributed.sharding import whole
from torchlasso.optim.buckets import Bucket
from torchlasso.optim.form import Form, Updated, Weights
from torchlasso.optim.fused.updates import Update
from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import State
from torchlasso.penalties.blocks import Strength
from torchlasso.selection import Group

# The name of o in the state of a parameter.
OFFSET = "offset"


class NormalMapForm(Form):
    """z ← z + the update by the gradient of the normal map, w ← prox_{tΩ}(z)."""

    enters: ClassVar[bool] = True

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        return metric.rate(options) / metric.reach_steps

    @contextmanager
    def updating(self, updated: Updated) -> Iterator[None]:
        lam = float(updated.group["lam"])
        kept = {p: p.grad for p in updated.group["params"] if p.grad is not None}
        if not lam or not kept:
            yield
            return
        with torch.no_grad():
            self._enter_(updated, lam, kept)
        try:
            yield
        finally:
            for p, grad in kept.items():
                p.grad = grad

    def _enter_(self, updated: Updated, lam: float, gradients: Mapping[Tensor, Tensor]) -> None:
        """Put latent weights and gradients of the normal map in the place of weights and gradients."""
        self._follow_rate(updated)
        params, reaches = updated.group["params"], updated.group["reaches"]
        starting = set()
        for p, reach in zip(params, reaches, strict=True):
            if p not in gradients:
                continue
            offset = updated.states.get(p, {}).get(OFFSET)
            if offset is None:
                starting.add(p)
                continue
            p.grad = gradients[p] + offset * (lam / reach)
            p.add_(offset)
        for p, slope in _subgradients(updated, starting).items():
            p.grad = gradients[p] + lam * slope

    def finish_(self, updated: Updated) -> None:
        group, states = updated.group, updated.states
        members = _updated(updated)
        if not float(group["lam"]):
            for p in members.values():
                states[p].pop(OFFSET, None)
            return
        starting = {i: p for i, p in members.items() if OFFSET not in states[p]}
        slopes = _subgradients(updated, set(starting.values()))
        for i, p in starting.items():
            reach = self._measured(p, updated.before[p], updated.length_of(i), group)
            if reach:
                group["reaches"][i] = reach
                states[p][OFFSET] = torch.zeros_like(p, memory_format=torch.preserve_format)
                p.add_(slopes[p], alpha=reach)
        self.settle_(updated, list(members.values()))

    def settle_(self, updated: Updated, params: Sequence[Tensor]) -> None:
        """Replace latent weights by their prox, and keep the difference; parameters without an offset stay."""
        group, over, each = updated.group, updated.penalty.over, updated.penalty.as_view()
        own = {p for p in params if OFFSET in updated.states.get(p, {})}
        for members, tensors in updated.sets():
            if not own.intersection(tensors):
                continue
            lam = float(group["lam"])
            steps: list[Strength | None] = [
                group["reaches"][i] / lam if p in own else None for i, p in zip(members, tensors, strict=True)
            ]
            lams = [lam * group["lam_scales"][i] for i in members]
            strengths = over.strengths(tensors, lams, updated.weights.get(tensors[0]))
            latents = {p: p.clone() for p in tensors if p in own}
            new = []
            for z, strength, step in zip(over.views(tensors), strengths, over.steps(tensors, steps), strict=True):
                if step is not None and (isinstance(strength, Tensor) or strength):
                    z = each.prox(z, strength, step)
                new.append(z)
            over.put_(tensors, new)
            for p, z in latents.items():
                updated.states[p][OFFSET].copy_(z - p)

    def latent_(self, updated: Updated) -> list[Tensor]:
        """Replace weights by the latent ones, in place, and return the parameters that have these."""
        params = [p for p in updated.group["params"] if OFFSET in updated.states.get(p, {})]
        for p in params:
            p.add_(updated.states[p][OFFSET])
        return params

    def _follow_rate(self, updated: Updated) -> None:
        """Let t, and what latent weights are away by, grow with the largest rate so far."""
        group = updated.group
        before, group["reach_peak"] = group["reach_peak"], group["lr_peak"]
        if before and group["lr_peak"] > before:
            ratio = group["lr_peak"] / before
            group["reaches"] = [reach * ratio for reach in group["reaches"]]
            for p in group["params"]:
                if OFFSET in updated.states.get(p, {}):
                    updated.states[p][OFFSET] *= ratio

    def _measured(self, p: Tensor, before: Tensor, rate: Any, group: Group) -> float:
        """Return the length of the first step of a parameter, for the largest rate so far; 0 if it did not move."""
        moved = whole((p - before).abs().double().square().mean()).sqrt().item() if p.numel() else 0.0
        return moved * (group["lr_peak"] / rate) if rate else 0.0

    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        return None


def _updated(updated: Updated) -> dict[int, Tensor]:
    """Return the parameters that have an update, by their index in the group."""
    return {i: p for i, p in enumerate(updated.group["params"]) if updated.length_of(i) is not None}


def _subgradients(updated: Updated, wanted: set[Tensor]) -> dict[Tensor, Tensor]:
    """Return a subgradient of Ω, at the weights before the update, for some parameters of a group."""
    found = dict[Tensor, Tensor]()
    over, each = updated.penalty.over, updated.penalty.as_view()
    for members, tensors in updated.sets():
        if not wanted.intersection(tensors):
            continue
        with torch.enable_grad():
            leaves = [updated.before.get(p, p).detach().clone().requires_grad_() for p in tensors]
            scales = [updated.group["lam_scales"][i] for i in members]
            strengths = over.strengths(tensors, scales, updated.weights.get(tensors[0]))
            terms = [each.value(view, lam) for view, lam in zip(over.views(leaves), strengths, strict=True)]
            slopes = torch.autograd.grad(torch.stack(terms).sum(), leaves, allow_unused=True)
        for p, slope in zip(tensors, slopes, strict=True):
            if p in wanted:
                found[p] = torch.zeros_like(p) if slope is None else slope
    return found
