"""The fused step: update and prox of many parameters, each in one pass over its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from torchlasso.blocks import computed
from torchlasso.optim.cohort import Cohort
from torchlasso.optim.kernels import Kernel, Run, kernel
from torchlasso.optim.updates import Update
from torchlasso.penalties import Penalty, Separable
from torchlasso.sharding import is_sharded


@dataclass(frozen=True)
class Shape:
    """A penalty without its numbers, which a step is given as it is given λ.

    Attributes:
        penalty: the class.
        fixed: its other fields, with their values.
        numbers: the names of its numbers.
    """

    penalty: type[Penalty]
    fixed: tuple[tuple[str, Any], ...]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, penalty: Penalty) -> tuple[Shape, list[float]]:
        """The shape of a penalty, and its numbers."""
        values = {field.name: getattr(penalty, field.name) for field in fields(penalty)}  # type: ignore[arg-type]
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        fixed = tuple((name, value) for name, value in values.items() if name not in numbers)
        return cls(type(penalty), fixed, tuple(numbers)), list(numbers.values())

    def with_numbers(self, numbers: Sequence[Tensor]) -> Penalty:
        """The penalty with tensors for its numbers, which its own checks of them would refuse."""
        penalty = object.__new__(self.penalty)
        for name, value in (*self.fixed, *zip(self.numbers, numbers, strict=True)):
            object.__setattr__(penalty, name, value)
        return penalty


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Step:
    """What is compiled: an update, then the prox in its metric."""

    update: Update
    shape: Shape

    def __call__(self, tensors: Sequence[Tensor], numbers: Tensor) -> None:
        w, grad, *buffers = (computed(t) for t in tensors)
        lam, *others = numbers.unbind()
        n = len(self.shape.numbers)
        z, tau, new = self.update.apply(w, grad, tuple(buffers), tuple(others[n:]))
        u = self.shape.with_numbers(others[:n]).prox(z, lam, tau)
        for old, value in zip((tensors[0], *tensors[2:]), (u, *new), strict=True):
            old.copy_(value)


def is_elementwise(penalty: Penalty | None) -> bool:
    """Whether the prox of a weight is a function of this weight alone."""
    return isinstance(penalty, Separable) and penalty.over.single and is_dataclass(penalty)


@dataclass(frozen=True)
class Launch:
    """A fused step that is ready to be done.

    Attributes:
        cohort: whose step it is.
        kernel: of the update, and of the prox if ``shrinks``.
        runs: the memory of its members.
        numbers: what the kernel is given.
        counters: the numbers of updates that the optimizer keeps, to be counted on.
        shrinks: whether the prox is done as well.
    """

    cohort: Cohort
    kernel: Kernel
    runs: list[Run]
    numbers: list[float]
    counters: list[Tensor]
    shrinks: bool

    @torch.no_grad()
    def __call__(self) -> None:
        self.kernel(self.runs, self.numbers)
        if self.counters:
            torch._foreach_add_(self.counters, 1)


def launches_of(
    cohort: Cohort, update: Update, spare: Penalty, states: dict[Tensor, dict[str, Any]]
) -> tuple[list[Launch], list[Cohort]]:
    """The fused step of a cohort, and what of it has none.

    Args:
        cohort: parameters with gradients.
        update: of their optimizer, with the options of the cohort.
        spare: an element-wise penalty, whose kernel serves with λ = 0 where the cohort's own penalty cannot be fused.
        states: of the optimizer; those of fused members are made where they are missing.
    """
    shrinks = cohort.penalty is None or is_elementwise(cohort.penalty)
    penalty, lam = (spare, 0.0) if cohort.penalty is None or not shrinks else (cohort.penalty, cohort.options["lam"])
    shape, own = Shape.of(penalty)
    numbers = [lam, *own, *update.numbers(cohort.options, cohort.age + 1, cohort.before, cohort.gain)]
    alike: dict[torch.dtype, list[tuple[int, dict[str, Any], Run]]] = {}
    launches: list[Launch] = []
    rest: list[Cohort] = []
    names, odd, foreign = update.buffers, [], []
    for i, p in enumerate(cohort.options["params"]):
        state = states.get(p) or update.start(p)
        run = run_of(p, p.grad, [state.get(name) for name in names])
        if run is not None:
            alike.setdefault(p.dtype, []).append((i, state, run))
        elif _is_plain(p) and _is_plain(p.grad):
            odd.append(i)
        else:
            foreign.append(i)  # torch has an answer to those
    for members in alike.values():
        part = cohort.part([i for i, _, _ in members])
        runs = [run for _, _, run in members]
        compiled = kernel(Step(update, shape), runs, len(numbers))
        if compiled is None:
            rest.append(cohort.part([i for i, _, _ in members], **_unfused(cohort, foreach=True)))
            continue
        if names:
            for p, (_, state, _) in zip(part.options["params"], members, strict=True):
                states[p] = state
        counters = [state["step"] for _, state, _ in members if "step" in state]
        launches.append(Launch(part, compiled, runs, numbers, counters, shrinks))
    if odd:
        rest.append(cohort.part(odd, **_unfused(cohort, foreach=False)))
    if foreign:
        rest.append(cohort.part(foreign))
    return launches, rest


def run_of(w: Any, grad: Any, buffers: Sequence[Any]) -> Run | None:
    """Weights, gradient and buffers as one run in memory, or None where they are none.

    A gradient in another order is copied into that of the weights.
    """
    if w.is_sparse or grad.is_sparse:
        return None
    if is_sharded(w):
        if any(b is None for b in buffers) or any(t.placements != w.placements for t in (grad, *buffers)):
            return None
        w, grad, *buffers = (t.to_local() for t in (w, grad, *buffers))
    run = (w, grad, *buffers)
    dtype, size = w.dtype, w.numel()
    for t in run:
        if t is None or t.dtype is not dtype or not t.is_cpu or t.numel() != size or not t.is_contiguous():
            break
    else:
        return run if dtype.is_floating_point else None
    return _ordered(run)


def _ordered(run: tuple[Any, ...]) -> Run | None:
    w, grad, *buffers = run
    tensors = [t for t in run if t is not None]
    alike = len(tensors) == len(run) and all(
        (t.layout, t.device.type, t.dtype, t.shape) == (torch.strided, "cpu", w.dtype, w.shape) for t in tensors
    )
    if not alike or not w.dtype.is_floating_point or any(b.stride() != w.stride() for b in buffers) or not _is_dense(w):
        return None
    if grad.stride() != w.stride():
        grad = torch.empty_strided(w.shape, w.stride(), dtype=w.dtype).copy_(grad)
    return (w, grad, *buffers)


def _is_dense(w: Tensor) -> bool:
    """Whether the weights lie in memory without gaps and without any of them twice."""
    expected = 1
    for stride, length in sorted(zip(w.stride(), w.shape, strict=True)):
        if length != 1:
            if stride != expected:
                return False
            expected *= length
    return True


def _is_plain(t: Tensor) -> bool:
    return t.layout == torch.strided and t.device.type == "cpu" and t.dtype.is_floating_point


def _unfused(cohort: Cohort, foreach: bool) -> dict[str, bool]:
    """Options for torch's own step in the place of the fused one."""
    return {"fused": False, "foreach": foreach and not isinstance(cohort.options["lr"], Tensor), "capturable": False}
