"""The fused step on devices that the host does not wait for: everything, including its numbers, is computed there.

Gains and the largest rate are tensors in the groups, rates may be tensors, and nothing is read back, so a step can be
captured in a graph and replayed.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim.averaging import averaged, averages, peak_of, share_of
from torchlasso.optim.buckets import DECAY_SCALES
from torchlasso.optim.fused.program import FusedStep, Template, has_template
from torchlasso.optim.fused.updates import Update
from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import Number
from torchlasso.penalties import L1, Penalty, check_strength
from torchlasso.selection import Group

# Numeric options of a group, which may change without a new compilation, and other options.
NUMBERS = ("lr", "lam", "betas", "eps", "weight_decay", "momentum", "dampening")
FIXED = ("averaging", "decoupled_weight_decay", "nesterov")
_NUMBERS = itertools.count()  # for the names of compiled functions


@dataclass(frozen=True)
class GroupStep:
    """A function to compile: the step of all parameters of one group that have a gradient.

    Attributes:
        step: of one of them.
        metric: of the optimizer.
        fixed: the options of the group that are not numbers, or are 0 and have no effect.
    """

    step: FusedStep
    metric: Metric
    fixed: tuple[tuple[str, Any], ...]

    def __call__(
        self,
        columns: Sequence[Sequence[Tensor]],
        ages: Sequence[Tensor],
        gains: Tensor,
        plain_gains: Tensor,
        peak: Tensor,
        options: Mapping[str, Any],
        lam: Tensor,
        penalty: Sequence[Tensor],
    ) -> None:
        """Do the step in place: weights, buffers, ages, gains and the largest rate.

        Args:
            columns: weights, gradients and buffers.
            ages, gains, plain_gains, peak, options: of the group.
            lam: λ of all members, or one for each.
            penalty: the numbers of the penalty.
        """
        group: Group = {**options, **dict(self.fixed)}
        peak.copy_(peak_of(peak, group["lr"]))
        age = torch.stack(list(ages)).to(gains.dtype) if ages else None
        step = averaged(self.metric, group, share_of(group["lr"], peak)[0], age, gains, plain_gains)
        own = self.step.update.numbers(step.options, group["lam"], None if age is None else age + 1, gains, step.gain)
        numbers = [lam, *penalty, *own]
        for i, tensors in enumerate(zip(*columns, strict=True)):
            self.step(tensors, [_of_member(number, i, tensors[0]) for number in numbers])
        for one in ages:
            one.add_(1)
        gains.copy_(step.gain)
        plain_gains.copy_(step.plain)


def _of_member(number: Number, i: int, w: Tensor) -> Tensor:
    each: Tensor = torch.as_tensor(number, device=w.device)
    return (each[i] if each.dim() else each).to(torch.promote_types(w.dtype, torch.float32))


@functools.cache
def _compiled(step: GroupStep, shapes: tuple[torch.Size, ...]) -> Callable[..., None]:
    """Return the compiled step for members of these shapes, which are constants for torch.compile.

    torch.compile refuses to compile a code object for the ninth time, so each step has its own.
    """
    call = GroupStep.__call__
    code = call.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
    own = types.MethodType(types.FunctionType(code, call.__globals__), step)
    # one kernel for many tensors, instead of one for each
    return torch.compile(own, fullgraph=True, options={"combo_kernels": True})


def is_for(group: Group, penalty: Penalty | None, weighted: bool) -> bool:
    """Return whether the step of a group is done here: requested, on a device, with a penalty that can be compiled."""
    wanted = (group.get("fused") or group.get("capturable")) and group["form"] == "proximal" and not group["held"]
    wanted = wanted and DECAY_SCALES not in group
    fits = penalty is None or (has_template(penalty) and not weighted and not penalty.over.joint)
    return bool(wanted) and _are_on_device(group["params"]) and fits


def _are_on_device(params: Sequence[Tensor]) -> bool:
    if not params or params[0].is_cpu:
        return False
    devices = {p.device for p in params}
    kinds = all(p.is_floating_point() and p.layout == torch.strided for p in params) and not any_sharded(params)
    return len(devices) == 1 and kinds and params[0].device.type != "mps"  # which has no float64 for the numbers


@torch.no_grad()
def advance(
    group: Group, penalty: Penalty | None, metric: Metric, update: Update, states: dict[Tensor, dict[str, Any]]
) -> None:
    """Do the step of a group."""
    if not isinstance(group["lam"], Tensor):
        check_strength(group["lam"])
    members = [i for i, p in enumerate(group["params"]) if p.grad is not None]
    if not members:
        return
    params = [group["params"][i] for i in members]
    for p in params:
        if not states.get(p):
            states[p] = update.start(p)
    columns = [params, [p.grad for p in params], *([states[p][name] for p in params] for name in update.buffers)]
    keep_on_device(group)
    everyone = len(members) == len(group["params"])
    gains, plain_gains = (group[name] if everyone else group[name][members] for name in ("gains", "plain_gains"))
    template, own = Template.of(penalty if penalty is not None else L1())
    fixed: dict[str, Any] = {name: bool(group[name]) for name in FIXED if name in group}
    where = params[0].device
    given = {name: _tensors(group[name], where) for name in NUMBERS if name in group}
    if "momentum" in group and not group["momentum"]:
        fixed["momentum"] = 0.0
        del given["momentum"]
    if not averages(metric, group):
        fixed["averaging"] = False
    lam = given["lam"] if penalty is not None else _tensors(0.0, where)
    scales = [group["lam_scales"][i] for i in members]
    if any(scale != 1 for scale in scales):
        lam = lam * torch.stack([_tensors(scale, where) for scale in scales])
    ages = [states[p]["step"] for p in params] if metric.aged else []
    step = GroupStep(FusedStep(update, template), metric, tuple(fixed.items()))
    do = step if params[0].is_meta else _compiled(step, tuple(p.shape for p in params))  # no values, nothing to compile
    do(columns, ages, gains, plain_gains, group["lr_peak"], given, lam, _tensors(own, where))
    if not everyone:
        group["gains"][members], group["plain_gains"][members] = gains, plain_gains


def keep_on_device(group: Group) -> None:
    """Make the gains and the largest rate tensors on the device of the parameters."""
    device = group["params"][0].device
    for name in ("gains", "plain_gains", "lr_peak"):
        if not isinstance(group[name], Tensor):
            # with one dimension, since writes of a compiled function into a tensor without one can be lost
            group[name] = torch.tensor(group[name], dtype=torch.float64, device=device).reshape(-1)


def _tensors(value: Any, device: torch.device) -> Any:
    """Return numbers as tensors, so that a function is not compiled for their values.

    They are filled on the device: to copy a number there is to wait for it.
    """
    if isinstance(value, tuple):
        return tuple(_tensors(each, device) for each in value)
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float64, device=device)
