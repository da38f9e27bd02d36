"""Metrics: how far each torch optimizer's own update moves a coordinate under a constant unit gradient.

This distance τ times λ is the threshold of a proximal step. With it, a zero stays zero exactly if its averaged gradient
is at most λ, and a nonzero weight rests if its gradient is −λ sign(w): the fixed points are the stationary points of
loss + λ·penalty, for any learning rate and any scaling by the optimizer.

A coordinate that has had no gradient has no metric yet: with ε alone, τ would be lr/ε, and the prox would erase every
weight that no batch has drawn so far. For it, gradients of size λ(1 + 100/t) are assumed after t updates; see
:mod:`torchlasso.optim.unseen`.

A metric also knows the coefficient β of the optimizer's averaging of gradients, and the gain of that averaging: the
value that its buffer would have if every gradient had been one.

Adadelta has no metric: its step length depends on its own updates, and it grows without bound where gradients rest at
−λ sign(w) instead of zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso.distributed.sharding import whole
from torchlasso.optim.metric import METRICS, DiagonalMetric, Metric, metric_of
from torchlasso.optim.unseen import Number, State, age_of, floored_unless_seen
from torchlasso.selection import Group


def known_metrics() -> Mapping[type[Optimizer], Metric]:
    """Return all torch optimizers with a known metric."""
    return METRICS


class _Momentum(Metric):
    """Heavy-ball averaging: buf ← μ·buf + g, whose length grows with μ; the rate corrects for that."""

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
    """Return whether there is momentum. A tensor is not read: it stands for a momentum above zero."""
    return isinstance(group["momentum"], Tensor) or group["momentum"] != 0


def after_first(before: Number, later: float | Tensor, first: float) -> Number:
    """Return ``later``, or ``first`` where the gain before was zero."""
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
class RMSpropMetric(_Momentum, DiagonalMetric):
    def first_gain(self, group: Group, state: State) -> float:
        return float((1 - group["momentum"] ** age_of(state)) / max(1 - group["momentum"], 1e-12))

    def reach(self, group: Group, state: State, gain: float) -> float:
        return group["lr"] * self._length(group, gain)  # type: ignore[no-any-return]

    def scale(self, group: Group, state: State) -> Tensor:
        size = root = state["square_avg"].sqrt()
        if group["centered"]:
            root = state["square_avg"].addcmul(state["grad_avg"], state["grad_avg"], value=-1).sqrt_()
        return floored_unless_seen(root, size, group, state).add_(group["eps"])

    def guard(self, group: Group, state: State) -> None:
        # A coordinate that rests has the constant gradient −λ, so its centred variance v − ḡ² is only rounding, of
        # which torch takes the root. If v is kept above the rounding error, it stays above ḡ² in the next update.
        if group["centered"] and "grad_avg" in state:
            floor = 1 + 64 * torch.finfo(state["square_avg"].dtype).eps
            torch.maximum(state["square_avg"], state["grad_avg"].square() * floor, out=state["square_avg"])


@metric_of(torch.optim.Adagrad)
class AdagradMetric(DiagonalMetric):
    def reach(self, group: Group, state: State, gain: float) -> float:
        return group["lr"] / (1 + (age_of(state) - 1) * group["lr_decay"])  # type: ignore[no-any-return]

    def scale(self, group: Group, state: State) -> Tensor:
        root = state["sum"].sqrt()
        return floored_unless_seen(root, root, group, state).add_(group["eps"])


@metric_of(torch.optim.Adafactor)
class AdafactorMetric(DiagonalMetric):
    """lr_t·max(ε₂, RMS(w))/max(1, RMS(g/√v)/d) over √v, v the product of the averages over rows and columns."""

    sees: ClassVar[bool] = True
    takes_complex: ClassVar[bool] = False

    def seen(self, p: Tensor, group: Group) -> State:
        return {"size": float(whole(p.detach().norm(2))) / max(1, p.numel()) ** 0.5, "grad": p.grad}

    def reach(self, group: Group, state: State, gain: float) -> float:
        root = self._root(group, state)
        moved = state["grad"] / root.clamp_min(self._eps(group, root))
        size = float(whole(moved.norm(2))) / max(1, moved.numel()) ** 0.5
        rate = min(group["lr"], age_of(state) ** -0.5)
        return max(group["eps"][1], state["size"]) * rate / max(1.0, size / group["d"])  # type: ignore[no-any-return]

    def scale(self, group: Group, state: State) -> Tensor:
        root = self._root(group, state)
        eps = self._eps(group, root)
        return floored_unless_seen(root, root, {**group, "eps": eps}, state).clamp_min(eps)

    def _root(self, group: Group, state: State) -> Tensor:
        if "variance" in state:
            return state["variance"].sqrt()  # type: ignore[no-any-return]
        row = state["row_var"]
        square: Tensor = (row @ state["col_var"]) / row.mean(dim=-2, keepdim=True).clamp_min(self._eps(group, row))
        return square.sqrt()

    def _eps(self, group: Group, like: Tensor) -> float:
        return torch.finfo(like.dtype).eps if group["eps"][0] is None else float(group["eps"][0])


class _Betas(DiagonalMetric):
    """Exponential averaging m ← β₁m + (1 − β₁)g, divided by 1 − β₁ᵗ as if β₁ were constant."""

    def averaging(self, group: Group) -> Number:
        return group["betas"][0]

    def with_averaging(self, group: Group, share: Number, age: Number, gain: Number, plain: Number) -> Group:
        first, second = group["betas"]
        first = 1 - (1 - first) * share
        gain = self.gain({"betas": (first, second)}, gain)
        # torch divides by 1 − β₁ᵗ instead of the gain, 1 − Π β₁: the rate corrects for it, and the decoupled decay,
        # which torch multiplies by the rate, for the corrected rate
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

    def reach(self, group: Group, state: State, gain: float) -> float:
        return group["lr"] * (gain / (1 - float(group["betas"][0]) ** age_of(state)))  # type: ignore[no-any-return]


@metric_of(torch.optim.Adam, torch.optim.AdamW)
class AdamMetric(_Betas):
    def scale(self, group: Group, state: State) -> Tensor:
        square = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        correction = (1 - float(group["betas"][1]) ** age_of(state)) ** 0.5
        root = square.sqrt() / correction
        return floored_unless_seen(root, root, group, state).add_(group["eps"])


@metric_of(torch.optim.Adamax)
class AdamaxMetric(_Betas):
    def scale(self, group: Group, state: State) -> Tensor:
        # torch adds ε to every gradient
        norm, size = state["exp_inf"], state["exp_inf"] - group["eps"]
        return floored_unless_seen(norm, size, group, state)


@metric_of(torch.optim.RAdam)
class RAdamMetric(_Betas):
    def reach(self, group: Group, state: State, gain: float) -> float:
        rectifier = self._rectifier(group, state)
        return super().reach(group, state, gain) * (1.0 if rectifier is None else rectifier)

    def scale(self, group: Group, state: State) -> Tensor:
        square, correction = state["exp_avg_sq"], 1 - float(group["betas"][1]) ** age_of(state)
        if self._rectifier(group, state) is None:
            return torch.ones_like(square)
        # torch does not correct it for its bias, so ε is scaled instead
        root = square.sqrt() / correction**0.5
        return floored_unless_seen(root, root, group, state).add_(group["eps"] / correction**0.5)

    def _rectifier(self, group: Group, state: State) -> float | None:
        """Return None in the first steps: too few for an estimate of the variance, so that they are momentum's."""
        age, second = age_of(state), float(group["betas"][1])
        limit = 2 / (1 - second) - 1  # ρ∞, the length of the simple average that the exponential one approximates
        rho = limit - 2 * age * second**age / (1 - second**age)
        if rho <= 5:
            return None
        return float(((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5)


@metric_of(torch.optim.NAdam)
class NAdamMetric(_Betas):
    def with_averaging(self, group: Group, share: float, age: int, gain: float, plain: float) -> Group:
        if share == 1:
            return {}
        # NAdam keeps the product of its own momenta, so a changing β₁ needs no correction; but it also adds the
        # gradient of the step itself, with weight 1 − μ_t, which has to fall by the same share
        first, second = group["betas"]
        mu = 1 - share * (1 - self._momentum(group, age + 1))
        first = 1 - (1 - first) * share
        return {"betas": (first, second), "momentum_decay": math.log(2 * (1 - mu / first), 0.96) / (age + 1)}

    def reach(self, group: Group, state: State, gain: float) -> float:
        age = age_of(state)
        mu, mu_next = self._momentum(group, age), self._momentum(group, age + 1)
        product = float(state["mu_product"])
        # the gradient of this step, and the average, each with its own correction
        return group["lr"] * ((1 - mu) / (1 - product) + mu_next * gain / (1 - product * mu_next))  # type: ignore[no-any-return]

    def scale(self, group: Group, state: State) -> Tensor:
        root = (state["exp_avg_sq"] / (1 - group["betas"][1] ** age_of(state))).sqrt_()
        return floored_unless_seen(root, root, group, state).add_(group["eps"])

    def _momentum(self, group: Group, age: int) -> float:
        return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (age * group["momentum_decay"])))
