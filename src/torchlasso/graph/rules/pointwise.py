"""Operators that treat every element alike, and operators that create tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, pinned
from torchlasso.graph.operators import Call, Dims, OperatorRule, Products, Reach, Shaped, all_pinned, pin_all, rule
from torchlasso.graph.unification import unify


@rule("pointwise", "hardswish", "_to_copy", "to", "contiguous", "dropout", "type_as", "fill", "copy",
      "triu", "tril", "alias", "detach", "lift_fresh_copy", "alpha_dropout", "feature_dropout",
      "__and__", "__or__", "__xor__")  # fmt: skip
class Pointwise(OperatorRule):
    """Operators on the elements at the same position, with broadcasting: the dimensions are the same."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        first = call.value[0] if call.several else call.value
        return call.each(broadcast([tensor.dims for tensor in call.tensors], call.name, first.shape))

    def reach(self, call: Call[Reach]) -> Any:
        first = call.value[0] if call.several else call.value
        return call.each(sum(tensor.depends.expand(first.shape) for tensor in call.tensors))


def broadcast(several: list[Dims], name: str, shape: Sequence[int]) -> Dims:
    """Return the dimensions of the result of tensors that are broadcast together to a shape."""
    out: Dims = []
    for place in range(-len(shape), 0):
        size = shape[place]
        found = [dims[place] for dims in several if len(dims) >= -place and dims[place].size == size]
        for other in found[1:]:
            unify(found[0], other, f"{name} needs equal sizes")
        out.append(found[0] if found else pinned(size, f"made by {name}"))
    return out


@rule("native_dropout")
class Dropout(Pointwise):
    """Dropout, even in evaluation."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call.tensors[0].dims
        return list(dims), list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        x = call.tensors[0]
        return x.depends + x.nonzero, torch.ones_like(x.depends)


@rule("mul", "multiply")
class Multiply(Pointwise):
    """Products, which are zero where a factor is zero."""

    def weighs(self, call: Call[Reach]) -> list[Products]:
        ranks = [tensor.depends.dim() for tensor in call.tensors]
        pairs = [(i, 1 - i) for i in range(len(ranks)) if len(ranks) == 2]
        return [
            Products(values, along + ranks[values] - ranks[weights], weights, along, size, adds_up=False)
            for values, weights in pairs
            for along, size in enumerate(call.tensors[weights].depends.shape)
            if size > 1 and along + ranks[values] - ranks[weights] >= 0
        ]

    def reach(self, call: Call[Reach]) -> Any:
        if not all(isinstance(call[name], Reach) for name in ("self", "other")):
            return super().reach(call)
        return bilinear(torch.mul, call["self"], call["other"])


def bilinear(function: Any, x: Reach, y: Reach) -> Tensor:
    """Return the dependence of a product: one factor depends on the inputs, and the other may differ from zero."""
    found: Tensor = function(x.depends, y.nonzero)
    return found if y.fixed else found + function(x.nonzero, y.depends)


@rule("div", "divide")
class Divide(Pointwise):
    """Quotients; zero divided by anything counts as zero."""

    def reach(self, call: Call[Reach]) -> Any:
        x, y = call["self"], call["other"]
        if not isinstance(x, Reach) or not isinstance(y, Reach):
            return super().reach(call)
        return x.depends + x.nonzero * y.depends


@rule("where", "masked_fill")
class Choose(Pointwise):
    """A choice between two tensors; where both have the same element, the condition has no effect."""

    def reach(self, call: Call[Reach]) -> Any:
        other = call.get("value", call.get("other"))
        x, y = (_known(value) for value in (call["self"], other))
        condition = call.get("mask", call.get("condition"))
        both = x.depends + y.depends
        there, elsewhere = (y, x) if "mask" in call.args else (x, y)
        either = torch.where(condition.value, there.depends, elsewhere.depends)  # if the condition is fixed
        differs = (both > 0) | (x.value != y.value)
        return torch.where(condition.depends > 0, both, either) + condition.depends * differs


def _known(value: Any) -> Reach:
    """Return the known elements of a tensor, or of a number."""
    if isinstance(value, Reach):
        return value
    return Reach(value, torch.zeros(()))


@rule("prelu", "_prelu_kernel")
class Prelu(OperatorRule):
    """PReLU, with a slope for each channel or one for all channels."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, slopes = call["self"].dims, [dim for dim in call["weight"].dims if dim.size > 1]
        if slopes:
            unify(dims[1 if len(dims) > 1 else 0], slopes[0], "prelu has a slope for each")
        return list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        return call["self"].depends


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
class Like(OperatorRule):
    """New tensors of the same shape. In a random one, each number depends on how many numbers are drawn before it."""

    def shape(self, call: Call[Shaped]) -> Any:
        if call.name.startswith("rand"):
            pin_all(call["self"].dims, f"{call.name} draws a number for each")
        return list(call["self"].dims)

    def reach(self, call: Call[Reach]) -> Any:
        return made(call)


@rule("zeros", "ones", "full", "empty", "arange", "eye", "scalar_tensor", "linspace", "rand", "randn", "randint",
      "randperm", "new_zeros", "new_ones", "new_full", "new_empty", "tril_indices", "triu_indices")  # fmt: skip
class Make(OperatorRule):
    """New tensors of a given shape, which can become smaller if all elements are equal."""

    def shape(self, call: Call[Shaped]) -> Any:
        if call.name.removeprefix("new_") in ("zeros", "ones", "full", "empty"):
            return [Axis(size) for size in call.value.shape]
        return all_pinned(call.value.shape, f"made by {call.name}")

    def reach(self, call: Call[Reach]) -> Any:
        return made(call)


def made(call: Call[Reach]) -> Tensor:
    """Return the dependence of a new tensor: none, except that random numbers count as dependent on the inputs."""
    return torch.full(call.value.shape, float(call.name.startswith("rand")))
