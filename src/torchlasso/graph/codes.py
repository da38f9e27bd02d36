"""The codes of features on values: an element has the code of the feature that it carries, and operators pass it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from torchlasso.graph.operators import Call, Reach

Dependence = Callable[[Call[Reach]], Any]  # a call ↦ the dependence of its results on their inputs


@dataclass(frozen=True)
class CodedValue:
    """A value of the model.

    Attributes:
        known: its elements, and their dependence on the inputs.
        codes: the code of the feature that each element carries, 0 for none; None if no element carries any.
        origin: the trained parameter that it is, and the dimension of it behind each of its own; None for new ones.
    """

    known: Reach
    codes: Tensor | None = None
    origin: tuple[str, tuple[int | None, ...]] | None = None


def carried_codes(
    reach: Dependence,
    args: dict[str, Any],
    call: Call[Reach],
    left: list[CodedValue],
    digits: int,
    refuse: Callable[[], NoReturn],
) -> list[Tensor | None]:
    """Return the codes that each result of an operator carries on.

    Args:
        reach: of the operator.
        args: its arguments by name, in which the values of ``left`` stand in this order.
        call: of the operator.
        left: the values that it gets, without the codes that weights have read.
        digits: the number of binary digits of a code.
        refuse: raises the error of elements that would carry two codes.
    """
    if all(x.codes is None for x in left):
        return [None] * (len(call.value) if call.several else 1)
    tensors, leaves = iter(left), list[tuple[Tensor, Tensor]]()
    found = reach(Call(call.name, mapped(args, lambda _: _leaf(tensors, leaves)), call.value))
    return [_codes_of(part, leaves, digits, refuse) for part in (found if call.several else (found,))]


def _leaf(tensors: Iterator[CodedValue], leaves: list[tuple[Tensor, Tensor]]) -> Reach:
    """Return the next value; enter its dependence, by which results are differentiated, if it carries codes."""
    x = next(tensors)
    if x.codes is None:
        return x.known
    leaves.append((x.known.depends.detach().clone().requires_grad_(), x.codes))
    return Reach(x.known.value, leaves[-1][0])


def _codes_of(
    found: Tensor, leaves: list[tuple[Tensor, Tensor]], digits: int, refuse: Callable[[], NoReturn]
) -> Tensor | None:
    """Return the codes that one result carries on, given its dependence on the leaves with their codes."""
    if not found.requires_grad:
        return None
    direction = torch.zeros(found.shape, requires_grad=True)
    # the derivative of the gradient in a direction is the derivative along the leaves: each element's dependence
    grads = torch.autograd.grad(found, [leaf for leaf, _ in leaves], direction, create_graph=True, allow_unused=True)
    pairs = [(grad, codes) for grad, (_, codes) in zip(grads, leaves, strict=True) if grad is not None]

    def on(digit: int, value: int) -> Tensor:
        masks = [(codes != 0) & (((codes - 1) >> digit) & 1 == value) for _, codes in pairs]
        total = sum(((grad * mask).sum() for (grad, _), mask in zip(pairs, masks, strict=True)), torch.zeros(()))
        if not total.requires_grad:
            return torch.zeros(found.shape, dtype=torch.bool)
        (along,) = torch.autograd.grad(total, direction, retain_graph=True, materialize_grads=True)
        return along > 0

    carried = torch.zeros(found.shape, dtype=torch.long)
    for digit in range(digits):
        ones, zeros = on(digit, 1), on(digit, 0)
        if (ones & zeros).any():
            refuse()
        carried += (ones.long() << digit) + ((ones | zeros).long() if digit == 0 else 0)
    return coded(carried)


def mapped(value: Any, function: Callable[[CodedValue], Any]) -> Any:
    """Apply a function to the values in a nest of dictionaries, lists and tuples."""
    if isinstance(value, CodedValue):
        return function(value)
    if isinstance(value, dict):
        return {name: mapped(part, function) for name, part in value.items()}
    return type(value)(mapped(part, function) for part in value) if isinstance(value, list | tuple) else value


def varying(depends: Tensor) -> Tensor:
    """Return dependence as 0 and 1, which asks for gradients where there is any."""
    positive = (depends.detach() > 0).float()
    return positive.requires_grad_() if positive.any() else positive


def coded(codes: Tensor | None) -> Tensor | None:
    """Return codes, None where no element carries any."""
    return codes if codes is not None and bool(codes.any()) else None
