"""Proximal optimizers: a torch optimizer whose every step ends in the prox of the penalty, so that zeros are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim import forms
from torchlasso.optim.averaging import averaged, peak_of, share_of
from torchlasso.optim.buckets import DECAY_SCALES, Bucket, buckets_of, decayed, store_gains
from torchlasso.optim.form import Form, Updated
from torchlasso.optim.fused import device, updates
from torchlasso.optim.fused.cpu import Launch, launches_of
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.fused.updates import Update
from torchlasso.optim.penalised import PenalisedOptimizer
from torchlasso.optim.unseen import State, age_of
from torchlasso.penalties import L1, Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.selection import Group

# With fused=None, kernels are used from so many weights on. Measured in docs/results: with fewer, the gain of the steps
# does not make up for the seconds of compilation at the first.
MANY = 1_000_000


class Proximal(PenalisedOptimizer):
    """Mixin over a torch optimizer: its update, then w ← prox_{τλΩ}(w) with τ from the unit-gradient rule.

    Each parameter group has ``lam``, a number that schedulers of λ may write as schedulers of the rate write ``lr``.
    The penalties are in the list ``penalties``, parallel to ``param_groups``. Groups come from
    :func:`torchlasso.param_groups`, or get ``penalty`` and ``lam`` from the arguments of the same name. λ is also
    multiplied by ``lam_scales`` of the group, a number for each parameter, and by ``weights``, which has a tensor with
    a weight for every block of some parameters; controllers write both (:mod:`torchlasso.control`). Groups with
    ``decay_scales``, a number for each parameter, multiply their weight decay by these.

    With ``averaging``, the optimizer averages gradients over a window that grows as the learning rate falls,
    1 − β_t = (1 − β)·(lr_t/lr_peak)², lr_peak the largest rate so far, and the update under a constant gradient keeps
    its length. Without it, the noise of mini-batches revives zeros at every rate (Xiao 2010; Lee and Wright 2012 on why
    proximal stochastic gradients do not identify the support). An optimizer that does not average gradients is not
    changed.

    With ``form="latent"``, the updates add up in latent weights z, and the thresholds in h:

        z ← z + the update
        h ← h + the length of the update·λ
        w ← argmin_u  ½‖u − z‖² + h·Ω(u)

    This is dual averaging (Xiao 2010); it takes a buffer more, needs a convex penalty, and under an adaptive optimizer
    its λ is relative to the size of each weight's gradients. docs/mathematics.md says what it solves.

    With ``form="normal-map"``, the optimizer moves latent weights z by the gradient ∇f(w) + (λ/t)·(z − w), and w is
    their prox, argmin_u ½‖u − z‖² + t·Ω(u). It has the same solutions as the default form and needs no metric, but a
    buffer more and a convex penalty; it is the form of optimizers that have no metric.

    With ``fused=True``, :class:`ProxSGD`, :class:`ProxAdam` and :class:`ProxAdamW` do update and prox in one pass over
    memory, with kernels that torch's compiler makes at the first step (seconds, once on a machine). Parameters that
    they do not support (an odd memory layout, a prox over columns) fall back to torch's step and a prox after it, and
    a warning says once if there is no compiler. ``fused=None`` uses kernels on a CPU from a million weights on, where
    they pay. On other devices, ``fused=True`` also computes all numbers of the step there, so that the host does not
    wait, and with ``capturable=True`` the step can be captured in a graph.

    Raises:
        ValueError: no group has a penalty; λ is negative or not finite; the penalty has no sound prox in the
            optimizer's metric, or does not suit a parameter's shape.
    """

    @_disable_dynamo  # the step has its own kernels, so torch.compile leaves it alone
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one update and its prox. ``closure`` is evaluated first, at the sparse weights, with gradients enabled."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._follow_written()
        on_device = self._advance_on_devices()
        buckets = buckets_of(self.param_groups, self.penalties, self.metric, self.state, on_device)
        launches, fallback = self._split(buckets)
        before = self._copies(fallback)
        stepped = [self.param_groups[bucket.group] for bucket in fallback]
        with self._entered({bucket.group for bucket in fallback}, before):
            self._update([bucket.options for bucket in fallback], stepped)
        with torch.no_grad():
            for launch in launches:
                launch()
                group = self.param_groups[launch.bucket.group]
                forms.form_of(group).launched_(group, launch.bucket, self.state)
        left = [*fallback, *(launch.bucket for launch in launches if not launch.has_prox)]
        for index, (group, penalty) in enumerate(zip(self.param_groups, self.penalties, strict=True)):
            if own := [bucket for bucket in left if bucket.group == index]:
                self._finish_(group, penalty, self._length_of(own), before)
        store_gains(self.param_groups, buckets)
        self._seen.clear()
        self._note_written()
        return loss

    def _reference_step(self) -> None:
        """Do what :meth:`step` does in the order of the formulas; every faster way is tested against it."""
        for index, (group, penalty) in enumerate(zip(self.param_groups, self.penalties, strict=True)):
            # 1 − β_t = (1 − β)·(lr/lr_peak)²: the window of the average grows as the learning rate falls
            group["lr_peak"] = peak_of(group["lr_peak"], group["lr"])
            share = share_of(group["lr"], group["lr_peak"])
            form, lengths, before = forms.form_of(group), {}, {p: p.detach().clone() for p in group["params"]}
            with self._entered([index], before):
                for i, p in enumerate(group["params"]):
                    if p.grad is None:
                        continue
                    age = age_of(self.state.get(p, {}))
                    own = decayed(group, group[DECAY_SCALES][i] if DECAY_SCALES in group else 1.0)
                    now = averaged(self.metric, own, share, age, group["gains"][i], group["plain_gains"][i])
                    # w ← the update of torch's optimizer with these options
                    self._update([{**now.options, "params": [p]}], [group])
                    # τ: how far that update moves a weight under a constant gradient of 1
                    lengths[i] = self._length(p, form, now.options, now.gain)
                    group["gains"][i], group["plain_gains"][i] = now.gain, now.plain
            # w ← prox_{τλΩ}(w), or what another form does in its place
            self._finish_(group, penalty, lengths.get, before)

    def _note_written(self) -> None:
        """Note when the parameters with latent weights were last written to, by torch's count."""
        self._versions = {
            p: p._version
            for group, penalty in zip(self.param_groups, self.penalties, strict=True)
            if penalty is not None and forms.form_of(group) is forms.LATENT_FORM
            for p in group["params"]
        }

    @torch.no_grad()
    def _follow_written(self) -> None:
        """Let latent weights follow parameters that were written to since the last step, such as by loading weights."""
        written = {p for p, version in self._versions.items() if p._version != version}
        for group, penalty in zip(self.param_groups, self.penalties, strict=True) if written else ():
            own = written.intersection(group["params"])
            if penalty is not None and own and forms.form_of(group) is forms.LATENT_FORM and not any_sharded(own):
                updated = Updated(group, penalty, lambda i: None, {}, self.state, self.weights)
                forms.LATENT_FORM.follow_(updated, own)

    def _update(self, steps: list[Group], groups: list[Group]) -> None:
        """Do the update of torch's optimizer with other options, and write into the groups what it changes in them."""
        for options in steps:
            for p in options["params"] if options["lam"] or self.metric.sees else ():
                self.metric.guard(options, self.state.get(p, {}))
                self._seen[p] = self.metric.seen(p, options)
        if not steps:
            return
        steps = [self.metric.options(options) for options in steps]
        given = [dict(options) for options in steps]
        with self._groups_replaced(steps):
            _unhooked(self.base.step)(self)
        for group, options, before in zip(groups, steps, given, strict=True):
            group.update({name: value for name, value in options.items() if value is not before.get(name)})

    def _length(self, p: Tensor, form: Form, options: Group, gain: float) -> Strength:
        """Return the length of the update of a parameter; of a complex one, those of both parts as a complex number."""
        state: State = {**self.state.get(p, {}), **self._seen.get(p, {})} if self._seen else self.state.get(p, {})
        if not p.is_complex():
            return form.length(self.metric, options, state, gain)
        found = form.length(self.metric, options, {name: _as_real(value) for name, value in state.items()}, gain)
        return torch.view_as_complex(found) if isinstance(found, Tensor) and found.dim() else found

    @torch.no_grad()
    def _entered(self, indices: Iterable[int], before: Mapping[Tensor, Tensor]) -> ExitStack:
        """Enter the context in which the forms of these groups want the update of torch's optimizer."""
        stack = ExitStack()
        for index in indices:
            group, penalty = self.param_groups[index], self.penalties[index]
            form = forms.form_of(group)
            if penalty is not None and form.enters:
                updated = Updated(group, penalty, lambda i: None, before, self.state, self.weights)
                stack.enter_context(form.updating(updated))
        return stack

    @torch.no_grad()
    def _finish_(
        self,
        group: Group,
        penalty: Penalty | None,
        length_of: Callable[[int], Strength | None],
        before: Mapping[Tensor, Tensor],
    ) -> None:
        """Finish the step of a group after the update of torch's optimizer; see :class:`Updated`."""
        if penalty is not None:
            updated = Updated(group, penalty, length_of, before, self.state, self.weights)
            forms.form_of(group).finish_(updated)

    def _length_of(self, buckets: Sequence[Bucket]) -> Callable[[int], Strength | None]:
        """Return the function from the index of a parameter to the length of its update, computed when asked for."""
        found = {
            i: (p, bucket) for bucket in buckets for i, p in zip(bucket.members, bucket.options["params"], strict=True)
        }

        def length_of(i: int) -> Strength | None:
            if i not in found:
                return None
            p, bucket = found[i]
            form = forms.form_of(self.param_groups[bucket.group])
            return self._length(p, form, bucket.options, bucket.gain)

        return length_of

    @torch.no_grad()
    def _copies(self, buckets: Sequence[Bucket]) -> dict[Tensor, Tensor]:
        """Copy the parameters whose form needs them as they were before the update."""
        found = {}
        for bucket in buckets:
            group, penalty = self.param_groups[bucket.group], self.penalties[bucket.group]
            if penalty is not None and forms.form_of(group).keeps_before:
                found.update({p: p.detach().clone() for p in bucket.options["params"]})
        return found

    def _advance_on_devices(self) -> list[int]:
        """Do the steps of the groups that are stepped on their device as a whole, and return their indices."""
        update_of = updates.fused_updates().get(self.base)
        if update_of is None:
            return []
        found = []
        for index, (group, penalty) in enumerate(zip(self.param_groups, self.penalties, strict=True)):
            weighted = any(p in self.weights for p in group["params"])
            if device.is_for(group, penalty, weighted):
                device.advance(group, penalty, self.metric, update_of(group), self.state)
                found.append(index)
        return found

    @torch.no_grad()
    def _split(self, buckets: list[Bucket]) -> tuple[list[Launch], list[Bucket]]:
        """Return the fused steps, and the buckets that fall back to torch's own step and a prox after it."""
        update_of = updates.fused_updates().get(self.base)
        if update_of is None:
            return [], buckets
        # where the penalty of a bucket is None, or cannot be fused, another one with λ = 0 stands in for it
        stand_in: Penalty = next((penalty for penalty in self.penalties if is_elementwise(penalty)), L1())
        launches: list[Launch] = []
        fallback: list[Bucket] = []
        for bucket in buckets:
            whole = self._fused(bucket, update_of) if self._is_fused(bucket) else None
            if whole is None:
                fallback.append(bucket)
                continue
            given = (self.weights.get(p) for p in bucket.options["params"])
            weights = [weight if isinstance(weight, Tensor) else None for weight in given]
            ready, others = launches_of(*whole, stand_in, self.state, weights)
            launches += ready
            fallback += others
        return launches, fallback

    def _fused(self, bucket: Bucket, update_of: Callable[[Group], Update]) -> tuple[Bucket, Update] | None:
        """Return what makes a kernel do all that the form of a bucket asks for; None where no kernel can."""
        update = update_of(bucket.options)
        if bucket.penalty is None:
            return bucket, update
        form = forms.form_of(self.param_groups[bucket.group])
        weights = [self.weights.get(p) for p in bucket.options["params"]]
        return form.fused(bucket, update, self.metric, self.state, weights)

    def _is_fused(self, bucket: Bucket) -> bool:
        fused, foreach = bucket.options["fused"], bucket.options["foreach"]
        if fused is not None or foreach is not None:
            return bool(fused)
        return sum(sum(map(Tensor.numel, group["params"])) for group in self.param_groups) >= MANY


def _unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the optimizer's step without the wrapper of hooks, which run once, around the whole proximal step."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[attr-defined]


def _as_real(value: Any) -> Any:
    """Return the parts of a complex tensor, (…, 2), which torch's optimizers update by themselves."""
    return torch.view_as_real(value) if isinstance(value, Tensor) and value.is_complex() else value
