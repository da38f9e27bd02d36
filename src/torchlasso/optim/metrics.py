"""Metrics: how far each torch optimizer's own update moves a coordinate under a constant unit gradient.

This distance τ is what λ is multiplied by to give the threshold of a proximal step. With it a zero stays zero exactly
where its averaged gradient is at most λ, and a non-zero rests where its gradient is −λ sign(w): the fixed points are
the stationary points of loss + λ·penalty, whatever the learning rate or the optimizer's scaling.

A coordinate that has had no gradient has no metric of its own yet: ε alone would make τ lr/ε, and wipe what no batch
has drawn so far. For it gradients of size λ(1 + 100/t) are assumed, t the updates so far; see :func:`or_unseen`.

Two more things are known here: where an optimizer keeps the coefficient β of its averaging of gradients, and the gain
of that averaging, the value that its buffer would hold had every gradient been one.

Adadelta has no metric: its step length feeds on its own updates, and where gradients rest at −λ sign(w) instead of zero
it grows for ever.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso._core.registry import Registry
from torchlasso.selection import Group

State = Mapping[str, Any]
Number = Any  # a float; a tensor on a device whose numbers the host does not wait for


class Metric(ABC):
    """The metric of a torch optimizer, which the proximal step needs. Stateless.

    ``group`` is the optimizer's parameter group as it holds for this step, ``state`` the parameter's state after the
    optimizer's update, ``gain`` the gain after it.
    """

    diagonal: ClassVar[bool] = True  # whether τ differs from coordinate to coordinate
    aged: ClassVar[bool] = True  # whether a step depends on how many there have been

    @abstractmethod
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        """τ: a number where it is the same for all coordinates, else a tensor like the parameter."""

    def averaging(self, group: Group) -> Number:
        """β, the coefficient of the averaging of gradients; 0 without one."""
        return 0.0

    def with_averaging(self, group: Group, share: Number, age: Number, gain: Number, plain: Number) -> Group:
        """The group's options for one step in which 1 − β is ``share`` times what it says.

        They make up for what the optimizer assumes of a constant β, so that the update under a constant gradient stays
        as long as it would be with it.

        Args:
            group: the options as they are.
            share: in (0, 1].
            age: how many updates the parameter has had before this one.
            gain: the gain before this step.
            plain: the gain after this step, had β always been what the group says.
        """
        return {}

    def gain(self, group: Group, before: Number) -> Number:
        """The gain after one more step: the recursion of the averaging buffer, fed with ones."""
        return 1.0

    def first_gain(self, group: Group, state: State) -> float:
        """The gain that a state found in a file of the plain optimizer must have, had its β been constant."""
        return 1.0

    def guard(self, group: Group, state: State) -> None:  # noqa: B027 — most need none
        """Called before the optimizer's update, to keep rounding from making a NaN of its denominator."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)  # there is no state to tell two of a class apart

    def __hash__(self) -> int:
        return hash(type(self))


_REGISTRY: Registry[type[Optimizer], Metric] = Registry("metric of")


def metric_of(*optimizers: type[Optimizer]) -> Callable[[type[Metric]], type[Metric]]:
    """Class decorator: the metric of these optimizer classes (of them exactly, not of what is derived from them)."""

    def entered(cls: type[Metric]) -> type[Metric]:
        for optimizer in optimizers:
            _REGISTRY.enter(optimizer, cls())
        return cls

    return entered


def known_metrics() -> Mapping[type[Optimizer], Metric]:
    """All torch optimizers whose metric is known."""
    return _REGISTRY


def age_of(state: State) -> int:
    """Return the number of updates that a parameter has had."""
    return int(state.get("step", 0))


# Gradients that were never above this, or above ε, count as none. It is the ε of Adam.
SILENT = 1e-8
# How many updates make it half certain that a coordinate without a gradient has none.
PATIENCE = 100


def silent_below(eps: Number) -> Number:
    """Return the size below which gradients count as none: about the smaller of ε and 1e-8."""
    return SILENT * eps / (SILENT + eps)


def assumed(lam: Number, age: Number) -> Number:
    """Return the size that is assumed of gradients that ``age`` updates have not shown.

    With it the prox moves a single weight by at most lr·t/(t + 100) in update t: hardly at all in the first ones, and
    in the end as far as a gradient of size λ would. Any positive size leaves the stationary points what they are, since
    the update itself does not move such a coordinate.
    """
    return lam * (1 + PATIENCE / age)


def or_unseen(root: Tensor, size: Tensor, group: Group, state: State) -> Tensor:
    """Return ``root``, a metric without ε, or what is assumed of it where there has been no gradient.

    Args:
        root: like the parameter.
        size: how large the gradients have been, like the parameter.
        group, state: of the parameter.
    """
    if torch.finfo(root.dtype).tiny > SILENT**2:
        return root  # float16 keeps no squares so small, so that a zero does not say that there was no gradient
    least = assumed(group["lam"], age_of(state))
    return torch.where(size <= silent_below(group["eps"]), root.clamp_min(least), root)


class _Momentum(Metric):
    """Heavy-ball averaging: buf ← μ·buf + g, which grows longer with μ; the rate takes that out again."""

    def averaging(self, group: Group) -> Number:
        return group["momentum"]

    def with_averaging(self, group: Group, share: Number, age: Number, gain: Number, plain: Number) -> Group:
        options: Group = {"momentum": 1 - (1 - group["momentum"]) * share}
        longer = {**group, **options}
        length = self._length(longer, self.gain(longer, gain))
        return {**options, "lr": group["lr"] * (self._length(group, plain) / length)}

    def gain(self, group: Group, before: Number) -> Number:
        return group["momentum"] * before + 1

    def _length(self, group: Group, gain: Number) -> Number:
        """Return the length by which a rate of 1 moves a coordinate under a constant unit gradient."""
        return gain if has_momentum(group) else 1.0


def has_momentum(group: Group) -> bool:
    """Return whether gradients are averaged; a tensor is not looked into, and there is one only where they are."""
    return isinstance(group["momentum"], Tensor) or group["momentum"] != 0


def after_first(before: Number, later: float | Tensor, first: float) -> Number:
    """``later``, or ``first`` where the gain before was zero."""
    if not isinstance(before, Tensor):
        return later if before else first
    there = (before != 0).to(before.dtype)
    return later * there + first * (1 - there)


@metric_of(torch.optim.SGD)
class SGDMetric(_Momentum):
    diagonal: ClassVar[bool] = False
    aged: ClassVar[bool] = False

    def gain(self, group: Group, before: Number) -> Number:
        if not has_momentum(group):
            return before  # torch leaves the buffer alone
        # torch's first buffer is the gradient itself, whatever the dampening
        return after_first(before, group["momentum"] * before + 1 - group["dampening"], 1.0)

    def first_gain(self, group: Group, state: State) -> float:
        if state.get("momentum_buffer") is None:
            return 0.0
        return float((1 - group["dampening"]) / max(1 - group["momentum"], 1e-12))

    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        return group["lr"] * self._length(group, gain)  # type: ignore[no-any-return]

    def _length(self, group: Group, gain: Number) -> Number:
        length = super()._length(group, gain)
        return 1 + group["momentum"] * length if group["nesterov"] else length


@metric_of(torch.optim.RMSprop)
class RMSpropMetric(_Momentum):
    def first_gain(self, group: Group, state: State) -> float:
        return float((1 - group["momentum"] ** age_of(state)) / max(1 - group["momentum"], 1e-12))

    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        size = root = state["square_avg"].sqrt()
        if group["centered"]:
            root = state["square_avg"].addcmul(state["grad_avg"], state["grad_avg"], value=-1).sqrt_()
        return group["lr"] * self._length(group, gain) / or_unseen(root, size, group, state).add_(group["eps"])  # type: ignore[no-any-return]

    def guard(self, group: Group, state: State) -> None:
        # A coordinate that rests has the constant gradient −λ: its centred variance v − ḡ² is zero but for rounding,
        # which torch takes the root of. Kept above the rounding error, v stays above ḡ² through the next update.
        if group["centered"] and "grad_avg" in state:
            floor = 1 + 64 * torch.finfo(state["square_avg"].dtype).eps
            torch.maximum(state["square_avg"], state["grad_avg"].square() * floor, out=state["square_avg"])


@metric_of(torch.optim.Adagrad)
class AdagradMetric(Metric):
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        lr = group["lr"] / (1 + (age_of(state) - 1) * group["lr_decay"])
        root = state["sum"].sqrt()
        return lr / or_unseen(root, root, group, state).add_(group["eps"])  # type: ignore[no-any-return]


class _Betas(Metric):
    """Exponential averaging m ← β₁m + (1 − β₁)g, divided by 1 − β₁ᵗ as if β₁ were constant."""

    def averaging(self, group: Group) -> Number:
        return group["betas"][0]

    def with_averaging(self, group: Group, share: Number, age: Number, gain: Number, plain: Number) -> Group:
        first, second = group["betas"]
        first = 1 - (1 - first) * share
        gain = self.gain({"betas": (first, second)}, gain)
        # torch divides by 1 − β₁ᵗ, right is the gain, 1 − Π β₁: the rate makes up for it, and the decoupled decay,
        # which is multiplied by the rate, for that
        correction = (1 - first ** (age + 1)) / gain
        options: Group = {"betas": (first, second), "lr": group["lr"] * correction}
        if group.get("decoupled_weight_decay"):
            options["weight_decay"] = group["weight_decay"] / correction
        return options

    def gain(self, group: Group, before: Number) -> Number:
        first = group["betas"][0]
        return first * before + (1 - first)

    def first_gain(self, group: Group, state: State) -> float:
        return 1 - float(group["betas"][0]) ** age_of(state)

    def _rate(self, group: Group, state: State, gain: float) -> float | Tensor:
        """The step under a constant unit gradient before the division by the denominator."""
        return group["lr"] * (gain / (1 - float(group["betas"][0]) ** age_of(state)))  # type: ignore[no-any-return]


@metric_of(torch.optim.Adam, torch.optim.AdamW)
class AdamMetric(_Betas):
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        square = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        correction = (1 - float(group["betas"][1]) ** age_of(state)) ** 0.5
        root = square.sqrt() / correction
        return self._rate(group, state, gain) / or_unseen(root, root, group, state).add_(group["eps"])


@metric_of(torch.optim.Adamax)
class AdamaxMetric(_Betas):
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        # torch adds ε to every gradient
        norm, size = state["exp_inf"], state["exp_inf"] - group["eps"]
        return self._rate(group, state, gain) / or_unseen(norm, size, group, state)


@metric_of(torch.optim.RAdam)
class RAdamMetric(_Betas):
    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        age, second = age_of(state), float(group["betas"][1])
        correction = 1 - second**age
        limit = 2 / (1 - second) - 1  # ρ∞, the longest simple average that the exponential one stands for
        rho = limit - 2 * age * second**age / correction
        rate, square = self._rate(group, state, gain), state["exp_avg_sq"]
        if rho <= 5:  # too few steps to know the variance: a plain momentum step, the same for all coordinates
            return torch.ones_like(square) * rate
        rectifier = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
        # not corrected for its bias: what is assumed has to be as small
        root = square.sqrt() / correction**0.5
        return rate * rectifier / or_unseen(root, root, group, state).add_(group["eps"] / correction**0.5)  # type: ignore[no-any-return]


@metric_of(torch.optim.NAdam)
class NAdamMetric(_Betas):
    def with_averaging(self, group: Group, share: float, age: int, gain: float, plain: float) -> Group:
        if share == 1:
            return {}
        # NAdam keeps the product of its own momenta, so that a changing β₁ needs no making up; but it also adds the
        # gradient of the step itself, with weight 1 − μ_t, which has to fall by the same share
        first, second = group["betas"]
        mu = 1 - share * (1 - self._momentum(group, age + 1))
        first = 1 - (1 - first) * share
        return {"betas": (first, second), "momentum_decay": math.log(2 * (1 - mu / first), 0.96) / (age + 1)}

    def step_size(self, group: Group, state: State, gain: float) -> float | Tensor:
        age, second = age_of(state), group["betas"][1]
        mu, mu_next = self._momentum(group, age), self._momentum(group, age + 1)
        product = float(state["mu_product"])
        # the gradient of this step, and the average, each with its own correction
        rate = group["lr"] * ((1 - mu) / (1 - product) + mu_next * gain / (1 - product * mu_next))
        root = (state["exp_avg_sq"] / (1 - second**age)).sqrt_()
        return rate / or_unseen(root, root, group, state).add_(group["eps"])  # type: ignore[no-any-return]

    def _momentum(self, group: Group, age: int) -> float:
        return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (age * group["momentum_decay"])))
