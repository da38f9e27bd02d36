"""Fused steps as functions to compile: an update of a torch optimizer, then the prox in its metric."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from torchlasso.optim.fused.inductor import KernelSource
from torchlasso.optim.fused.updates import Buffers, Update
from torchlasso.penalties import Penalty, Separable
from torchlasso.penalties.blocks import Partition
from torchlasso.penalties.magnitudes import computed, divide


@dataclass(frozen=True)
class Template:
    """A penalty without its numbers, which are arguments of a step, as λ is.

    Attributes:
        penalty: the class.
        fixed: its other fields, with their values.
        numbers: the names of its numeric fields.
    """

    penalty: type[Penalty]
    fixed: tuple[tuple[str, Any], ...]
    numbers: tuple[str, ...]

    @classmethod
    @functools.cache
    def of(cls, penalty: Penalty) -> tuple[Template, tuple[float, ...]]:
        """Return the template of a penalty, and its numbers."""
        values = {field.name: getattr(penalty, field.name) for field in fields(penalty)}  # type: ignore[arg-type]
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        fixed = tuple((name, value) for name, value in values.items() if name not in numbers)
        return cls(type(penalty), fixed, tuple(numbers)), tuple(numbers.values())

    def with_numbers(self, numbers: Sequence[Tensor]) -> Penalty:
        """Return the penalty with tensors for its numbers, which its own checks of them would refuse."""
        penalty = object.__new__(self.penalty)
        for name, value in (*self.fixed, *zip(self.numbers, numbers, strict=True)):
            object.__setattr__(penalty, name, value)
        return penalty


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class FusedStep(KernelSource):
    """A function to compile: an update, then the prox in its metric.

    Attributes:
        update: of an optimizer.
        template: of the penalty.
        weighted: whether every weight has a factor of λ, in a tensor that comes after the gradient.
    """

    update: Update
    template: Template
    weighted: bool = False

    def __call__(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[Tensor]:
        own = tensors[3:] if self.weighted else tensors[2:]
        w, grad, *buffers = (computed(t) for t in (*tensors[:2], *own))
        lam, *others = numbers
        if self.weighted:
            lam = lam * computed(tensors[2])
        n = len(self.template.numbers)
        penalty, others = self.template.with_numbers(others[:n]), others[n:]
        u, new, outputs = self._step(penalty, lam, w, grad, tuple(buffers), tuple(others))
        for old, value in zip((tensors[0], *own), (u, *new), strict=True):
            old.copy_(value)
        return outputs

    def _step(
        self, penalty: Any, lam: Tensor, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers
    ) -> tuple[Tensor, Buffers, list[Tensor]]:
        z, tau, new = self.update.apply(w, grad, buffers, numbers)
        if not is_elementwise(penalty):
            return penalty.prox(z, lam, tau), new, []
        # the same as ``prox`` for single weights; compiled, this way to give r its sign is the fastest
        r = penalty.prox_phi(z.abs(), lam, tau)
        return torch.where(z < 0, 0.0 - r, r), new, []


@dataclass(frozen=True)
class RowStep(FusedStep):
    """A fused step for blocks that are rows: the penalty is that of a row's norm, and λ that of the row.

    The prox is done only for rows for which it is easy, and the step returns which: with a τ for each coordinate those
    whose norm hardly changes, else those in whose norm no square overflows or is lost.
    """

    def _step(
        self, penalty: Any, lam: Tensor, w: Tensor, grad: Tensor, buffers: Buffers, numbers: Buffers
    ) -> tuple[Tensor, Buffers, list[Tensor]]:
        if self.update.diagonal:
            start = torch.linalg.vector_norm(w, dim=1)
            over, under, metric, reach, new = self.update.apply_scaled(w, grad, buffers, numbers)
            u, near = penalty.prox_near_rows(over, under, metric, lam * reach, start)
            return u, new, [near]
        z, tau, new = self.update.apply(w, grad, buffers, numbers)
        square, largest, limits = (z * z).sum(dim=1), z.abs().amax(dim=1), torch.finfo(z.dtype)
        exact = (square > limits.tiny / limits.eps) & (square < limits.max * limits.eps)  # no square was lost
        r = square.sqrt()
        factor = torch.where(exact, divide(penalty.prox_phi(r, lam, tau), r), 1.0)
        return z * factor[:, None], new, [exact | (largest == 0)]


def is_elementwise(penalty: Penalty | None) -> TypeGuard[Separable]:
    """Return whether the prox of a weight is a function of this weight alone."""
    if not isinstance(penalty, Separable) or not has_template(penalty):
        return False
    return penalty.over.single and penalty.over.symmetric and not penalty.over.spares


def is_rowwise(penalty: Penalty | None, update: Update) -> TypeGuard[Separable]:
    """Return whether the prox of a row of weights can be a part of the update of this row."""
    return (
        isinstance(penalty, Separable)
        and isinstance(penalty.over, Partition)
        and has_template(penalty)
        and (not update.diagonal or type(penalty).prox_near_rows is not Separable.prox_near_rows)
    )


def has_template(penalty: Penalty) -> bool:
    """Return whether the penalty is a frozen dataclass, so that its numbers are known."""
    return is_dataclass(penalty) and type(penalty).__hash__ is not None
