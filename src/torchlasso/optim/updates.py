"""Updates: a step of torch's SGD, Adam and AdamW as arithmetic on weights, for a compiler to fuse with the prox.

All that changes from step to step (rates, coefficients of averaging, corrections of bias) is in numbers, which are
computed outside and handed over in a tensor, so that no change of them is a change of the code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso.optim.metrics import Group

Buffers = tuple[Tensor, ...]


class Update(ABC):
    """One torch optimizer's update, with the options that change its code. Its formulas are those of torch."""

    @property
    @abstractmethod
    def buffers(self) -> tuple[str, ...]:
        """The names of the tensors like the weights that the update keeps in the state of a parameter."""

    def start(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a parameter before its first step, as torch has it."""
        return {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name in self.buffers}

    @abstractmethod
    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        """The weights after the update, the step size τ of the prox (a number or like ``w``) and the new buffers."""

    @abstractmethod
    def numbers(self, group: Group, age: int, before: float, gain: float) -> list[float]:
        """The numbers of a step.

        Args:
            group: the options that the step is done with.
            age: how many updates the parameters will then have had.
            before: the gain of the averaging before the step; ``gain``: after it.
        """


_REGISTRY: dict[type[Optimizer], Callable[[Group], Update]] = {}


def update_of(*optimizers: type[Optimizer]) -> Callable[[Callable[[Group], Update]], Callable[[Group], Update]]:
    """Decorator: the function gives the update that these optimizer classes do with the options of a group."""

    def enter(choose: Callable[[Group], Update]) -> Callable[[Group], Update]:
        _REGISTRY.update(dict.fromkeys(optimizers, choose))
        return choose

    return enter


def registry() -> Mapping[type[Optimizer], Callable[[Group], Update]]:
    """The optimizer classes that have a fused step."""
    return _REGISTRY


@dataclass(frozen=True)
class Descent(Update):
    """w ← w − lr·g."""

    @property
    def buffers(self) -> tuple[str, ...]:
        return ()

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        sign, decay, lr = numbers
        return w - lr * (sign * grad + decay * w), lr, ()

    def numbers(self, group: Group, age: int, before: float, gain: float) -> list[float]:
        return [_sign(group), float(group["weight_decay"]), float(group["lr"])]


@dataclass(frozen=True)
class HeavyBall(Update):
    """buf ← μ·buf + (1 − damp)·g, the first one being g itself; w ← w − lr·buf, or w − lr·(g + μ·buf) with Nesterov."""

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        sign, decay, lr, momentum, fresh, direct, through, reach = numbers
        grad = sign * grad + decay * w
        buffer = momentum * buffers[0] + fresh * grad
        return w - lr * (direct * grad + through * buffer), reach, (buffer,)

    def numbers(self, group: Group, age: int, before: float, gain: float) -> list[float]:
        lr, momentum = float(group["lr"]), float(group["momentum"])
        fresh = 1 - group["dampening"] if before else 1.0
        direct, through = (1.0, momentum) if group["nesterov"] else (0.0, 1.0)
        reach = lr * (direct + through * gain)
        return [_sign(group), float(group["weight_decay"]), lr, momentum, fresh, direct, through, reach]


@update_of(torch.optim.SGD)
def _sgd(group: Group) -> Update:
    return HeavyBall() if group["momentum"] else Descent()


@dataclass(frozen=True)
class Adam(Update):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − lr·m̂/(√v̂ + ε), after a decay of w where it is decoupled.

    Args:
        amsgrad: the largest v so far takes the place of v.
    """

    amsgrad: bool = False

    @property
    def buffers(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def start(self, p: Tensor) -> dict[str, Tensor]:
        return {"step": torch.zeros((), dtype=torch.float32), **super().start(p)}

    def apply(self, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        sign, decay, keep, first, first_new, second, second_new, root, eps, lr, reach = numbers
        grad = sign * grad + decay * w
        mean = first * buffers[0] + first_new * grad
        square = second * buffers[1] + second_new * (grad * grad)
        new = (mean, square, torch.maximum(buffers[2], square)) if self.amsgrad else (mean, square)
        inverse = 1 / (new[-1].sqrt() * root + eps)
        return keep * w - (lr * mean) * inverse, reach * inverse, new

    def numbers(self, group: Group, age: int, before: float, gain: float) -> list[float]:
        lr, weight_decay = float(group["lr"]), float(group["weight_decay"])
        first, second = map(float, group["betas"])
        decoupled = bool(group["decoupled_weight_decay"])
        lr_hat = lr / (1 - first**age)
        return [
            _sign(group),
            0.0 if decoupled else weight_decay,
            1 - lr * weight_decay if decoupled else 1.0,
            first,
            1 - first,
            second,
            1 - second,
            (1 - second**age) ** -0.5,
            float(group["eps"]),
            lr_hat,
            lr_hat * gain,
        ]


@update_of(torch.optim.Adam, torch.optim.AdamW)
def _adam(group: Group) -> Update:
    return Adam(amsgrad=bool(group["amsgrad"]))


def _sign(group: Group) -> float:
    return -1.0 if group["maximize"] else 1.0

