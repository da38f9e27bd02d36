"""Updates: a step of torch's SGD, Adam and AdamW as arithmetic on weights, for a compiler to fuse with the prox.

Values that change from step to step (rates, coefficients of averaging, corrections of bias) are computed outside and
passed as numbers in a tensor, so that a change of them does not change the code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso._core.registry import Registry
from torchlasso.optim.metrics import after_first
from torchlasso.optim.unseen import Number, assumed, silent_below
from torchlasso.penalties.magnitudes import computed
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import Group

Buffers = tuple[Tensor, ...]


@dataclass(frozen=True)
class Update(ABC):
    """One torch optimizer's update, with the options that change its code. Its formulas are those of torch.

    Args:
        ascends: whether the objective is maximised.
        decays: whether weight decay is a part of the gradient.
    """

    diagonal: ClassVar[bool] = False  # whether τ differs from weight to weight
    whole: ClassVar[bool] = False  # whether the prox has to be a part of it
    ascends: bool = False
    decays: bool = False

    @property
    def buffers(self) -> tuple[str, ...]:
        """The names of the tensors like the weights that the update keeps in the state of a parameter."""
        return ()

    def start(self, p: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step, in torch's form."""
        return {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name in self.buffers}

    def _direction(self, w: Tensor, grad: Tensor, decay: Tensor) -> Tensor:
        """Return the gradient, with the opposite sign or the weight decay added."""
        grad = -grad if self.ascends else grad
        return grad + decay * w if self.decays else grad

    @abstractmethod
    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Any, Buffers]:
        """Return the weights after the update, τ of the prox (a number or like ``w``) and the new buffers."""

    def apply_scaled(
        self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Buffers]:
        """Do the same without a division where τ is c/d for a tensor d.

        Returns:
            The numerator and the denominator of d·z; d, c and the new buffers.
        """
        raise NotImplementedError

    def step_size(self, buffers: Buffers, numbers: Sequence[float]) -> Tensor | float:
        """Return τ from the buffers after an update: like the weights, or a number."""
        return numbers[-1]

    @abstractmethod
    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        """Return the numbers of a step.

        Args:
            group: the options of the step.
            lam: λ of the group, without the scales of its members, which change when a model shrinks.
            age: the number of updates of the parameters, including this one.
            before, gain: the gain of the averaging before and after the step.
        """


_REGISTRY: Registry[type[Optimizer], Callable[[Group], Update]] = Registry("update of")


def update_of(*optimizers: type[Optimizer]) -> Callable[[Callable[[Group], Update]], Callable[[Group], Update]]:
    """Register the decorated function: it returns the update of these optimizers with the options of a group."""

    def entered(choose: Callable[[Group], Update]) -> Callable[[Group], Update]:
        for optimizer in optimizers:
            _REGISTRY.enter(optimizer, choose)
        return choose

    return entered


def fused_updates() -> Mapping[type[Optimizer], Callable[[Group], Update]]:
    """Return the optimizer classes that have a fused step."""
    return _REGISTRY


@dataclass(frozen=True)
class Descent(Update):
    """w ← w − lr·g."""

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        decay, lr = numbers
        return w - lr * self._direction(w, grad, decay), lr, ()

    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        return [group["weight_decay"], group["lr"]]


@dataclass(frozen=True)
class HeavyBall(Update):
    """buf ← μ·buf + (1 − damp)·g, the first one being g itself; w ← w − lr·buf, or w − lr·(g + μ·buf) with Nesterov."""

    nesterov: bool = False

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        decay, lr, momentum, fresh, reach = numbers
        grad = self._direction(w, grad, decay)
        buffer = momentum * buffers[0] + fresh * grad
        return w - lr * (grad + momentum * buffer if self.nesterov else buffer), reach, (buffer,)

    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        lr, momentum = group["lr"], group["momentum"]
        fresh = after_first(before, 1 - group["dampening"], 1.0)
        reach = lr * (1 + momentum * gain if self.nesterov else gain)
        return [group["weight_decay"], lr, momentum, fresh, reach]


@update_of(torch.optim.SGD)
def _sgd(group: Group) -> Update:
    signs = {"ascends": bool(group["maximize"]), "decays": group["weight_decay"] != 0}
    return HeavyBall(nesterov=bool(group["nesterov"]), **signs) if group["momentum"] else Descent(**signs)


@dataclass(frozen=True)
class Adam(Update):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − lr·m̂/(√v̂ + ε), after a decay of w where it is decoupled.

    With v̂ = v/c the last is w − √c·lr·m̂/(√v + √c·ε), which saves a multiplication. The metric of the prox is this
    denominator wherever there has been a gradient; see :func:`~torchlasso.optim.unseen.floored_unless_seen`.

    Args:
        amsgrad: the largest v so far takes the place of v.
    """

    diagonal: ClassVar[bool] = True
    amsgrad: bool = False

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def start(self, p: Tensor) -> dict[str, Tensor]:
        return {"step": torch.zeros((), dtype=torch.float32, device=p.device), **super().start(p)}

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        _, keep, _, _, eps, lr, reach, *_ = numbers
        new = self._averages(w, grad, buffers, numbers)
        root = new[-1].sqrt()
        return keep * w - lr * new[0] / (root + eps), reach / self._metric(root, numbers), new

    def apply_scaled(
        self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Buffers]:
        _, keep, _, _, eps, lr, reach, *_ = numbers
        new = self._averages(w, grad, buffers, numbers)
        root = new[-1].sqrt()
        metric = self._metric(root, numbers)
        return ((keep * w) * (root + eps) - lr * new[0]) * metric, root + eps, metric, reach, new

    def _averages(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> Buffers:
        decay, _, fresh, fresh_square, *_ = numbers
        grad = self._direction(w, grad, decay)
        mean = buffers[0] + fresh * (grad - buffers[0])
        square = buffers[1] + fresh_square * (grad * grad - buffers[1])
        return (mean, square, torch.maximum(buffers[2], square)) if self.amsgrad else (mean, square)

    def _metric(self, root: Tensor, numbers: Sequence[Any]) -> Tensor:
        """Return √v + √c·ε, with the assumed size in the place of √v where there has been no gradient."""
        *_, eps, _, _, silent, least = numbers
        metric: Tensor = torch.where(root <= silent, root.clamp_min(least), root) + eps
        return metric

    def step_size(self, buffers: Buffers, numbers: Sequence[float]) -> Tensor | float:
        reach: float = numbers[-3]
        return reach / self._metric(buffers[-1].sqrt(), numbers)

    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        lr, weight_decay, (first, second) = group["lr"], group["weight_decay"], group["betas"]
        keep = 1 - lr * weight_decay if group["decoupled_weight_decay"] else 1.0
        root = (1 - second**age) ** 0.5
        lr_hat = root * lr / (1 - first**age)
        eps, least = group["eps"], assumed(lam, age)
        # in float16 a zero square does not mean that there was no gradient
        half = any(p.dtype == torch.float16 for p in group.get("params", ()))
        averages, rates = [1 - first, 1 - second], [root * eps, lr_hat, lr_hat * gain]
        silent = -1.0 if half else root * silent_below(eps)
        return [weight_decay, keep, *averages, *rates, silent, root * least]


@update_of(torch.optim.Adam, torch.optim.AdamW)
def _adam(group: Group) -> Update:
    decays = group["weight_decay"] != 0 and not group["decoupled_weight_decay"]
    return Adam(ascends=bool(group["maximize"]), decays=bool(decays), amsgrad=bool(group["amsgrad"]))


@dataclass(frozen=True)
class Extended(Update):
    """An update that does another one first, with the same state and numbers, and a part of the prox as well.

    Args:
        inner: the other update.
    """

    whole: ClassVar[bool] = True
    inner: Update = field(kw_only=True)

    @property
    def buffers(self) -> tuple[str, ...]:
        return self.inner.buffers

    def start(self, p: Tensor) -> dict[str, Tensor]:
        return self.inner.start(p)

    def step_size(self, buffers: Buffers, numbers: Sequence[float]) -> Tensor | float:
        return 1.0

    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        return self.inner.numbers(group, lam, age, before, gain)


@dataclass(frozen=True)
class Latent(Extended):
    """z ← z + how far an update moves the weights; the prox is that of z, under a threshold for all weights."""

    @property
    def buffers(self) -> tuple[str, ...]:
        return (*super().buffers, "latent")

    def start(self, p: Tensor) -> dict[str, Tensor]:
        return {**super().start(p), "latent": p.detach().clone(memory_format=torch.preserve_format)}

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Any, Buffers]:
        *own, latent = buffers
        u, _, new = self.inner.apply(w, grad, tuple(own), numbers)
        z = latent + (u - w)
        return z, 1.0, (*new, z)


@dataclass(frozen=True)
class LatentReweighted(Latent):
    """The same with a threshold for each weight, h ← h + growth·(θ/(|w| + θ))^q.

    Args:
        q: the power.
    """

    q: float = field(default=1.0, kw_only=True)

    @property
    def buffers(self) -> tuple[str, ...]:
        return (*super().buffers, "threshold")

    def start(self, p: Tensor) -> dict[str, Tensor]:
        return {**super().start(p), "threshold": torch.zeros_like(computed(p), memory_format=torch.preserve_format)}

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Any, Buffers]:
        growth, theta, *others = numbers
        *own, threshold = buffers
        threshold = threshold + growth * Reweighting(theta, self.q).at(w.abs())  # type: ignore[arg-type]
        z, _, new = super().apply(w, grad, tuple(own), tuple(others))
        return z, threshold, (*new, threshold)

    def numbers(self, group: Group, lam: Number, age: Number, before: Number, gain: Number) -> list[Number]:
        return [group["growth"], group["theta"], *super().numbers(group, lam, age, before, gain)]


@dataclass(frozen=True)
class Held(Extended):
    """An update after which weights that were zero are zero again."""

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Any, Buffers]:
        u, _, new = self.inner.apply(w, grad, buffers, numbers)
        return torch.where(w == 0, 0.0, u), 1.0, new
