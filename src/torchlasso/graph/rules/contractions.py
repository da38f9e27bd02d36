"""Operators that multiply and add up: the dimension of the sum is not in the result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, pin, product
from torchlasso.graph.operators import Call, OperatorRule, Products, Reach, Shaped, all_pinned, rule
from torchlasso.graph.rules.pointwise import bilinear, broadcast
from torchlasso.graph.unification import unify

MATCH = "{} needs equal sizes"


class Affine(OperatorRule):
    """Operators with an input, a weight and an optional bias."""

    adds_up = True

    @abstractmethod
    def product(self, call: Call[Any], x: Tensor, weight: Tensor) -> Tensor:
        """Apply the operator to an input and a weight, without a bias."""

    @abstractmethod
    def after(self, rank: int) -> int:
        """Return the number of dimensions of the result after that of the bias, for a weight of this rank."""

    def reach(self, call: Call[Reach]) -> Any:
        found = bilinear(lambda x, w: self.product(call, x, w), call["input"], call["weight"])
        bias, after = call["bias"], self.after(call["weight"].value.dim())
        return found + bias.depends.reshape(-1, *[1] * after) if isinstance(bias, Reach) else found


class _LinearOfOneRow(torch.autograd.Function):
    """The product x (W ≠ 0)ᵀ of many rows x, which are often all equal, forwards and backwards: then one is enough."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, nonzero: Tensor) -> Tensor:
        ctx.save_for_backward(nonzero)
        return _each_row(lambda rows: rows @ nonzero.T.to(rows.dtype), x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (nonzero,) = ctx.saved_tensors
        return _each_row(lambda rows: rows @ nonzero.to(rows.dtype), grads[0]), None


def _each_row(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function to the rows of a tensor, its last dimension; only to the first if all are equal."""
    rows = x.flatten(0, -2)
    alike = len(rows) > 1 and torch.equal(rows[1], rows[0]) and bool((rows == rows[0]).all())
    found = function(rows[:1]) if alike else function(rows)
    return found.expand(len(rows), -1).reshape(*x.shape[:-1], found.shape[-1])


_rows: Callable[[Tensor, Tensor], Tensor] = _LinearOfOneRow.apply


@rule("linear")
class Linear(Affine):
    """Linear layers: x Wᵀ + b."""

    local = True

    def reach(self, call: Call[Reach]) -> Any:
        x, weight, bias = call["input"], call["weight"], call["bias"]
        if not weight.fixed or weight.value.dim() < 2 or x.depends.dim() < 2:
            return super().reach(call)
        found = _rows(x.depends, weight.value != 0)
        return found + bias.depends if isinstance(bias, Reach) else found

    def shape(self, call: Call[Shaped]) -> Any:
        *batch, columns = call["input"].dims
        *made, consumed = call["weight"].dims  # with a vector, the result is a single number
        unify(columns, consumed, MATCH.format(call.name))
        if isinstance(call["bias"], Shaped):
            for a, b in zip(made, call["bias"].dims, strict=True):
                unify(a, b, MATCH.format(call.name))
        return [*batch, *made]

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        return [(1, 1)]

    def weighs(self, call: Call[Reach]) -> list[Products]:
        x, weight = call["input"].depends, call["weight"].depends
        return [Products(0, x.dim() - 1, 1, weight.dim() - 1, x.shape[-1])]

    def product(self, call: Call[Any], x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, weight)

    def after(self, rank: int) -> int:
        return 0


@rule("bilinear")
class Bilinear(OperatorRule):
    """Bilinear layers: x₁ᵀ W x₂ + b for each of several W."""

    adds_up = True

    def shape(self, call: Call[Shaped]) -> Any:
        (*batch, first), (*others, second) = call["input1"].dims, call["input2"].dims
        made, one, two = call["weight"].dims
        reason = MATCH.format(call.name)
        for a, b in zip((*batch, first, second), (*others, one, two), strict=True):
            unify(a, b, reason)
        if isinstance(call["bias"], Shaped):
            unify(made, call["bias"].dims[0], reason)
        return [*batch, made]

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        return [(2, 1), (2, 2)]

    def weighs(self, call: Call[Reach]) -> list[Products]:
        x, y = call["input1"].depends, call["input2"].depends
        return [Products(0, x.dim() - 1, 2, 1, x.shape[-1]), Products(1, y.dim() - 1, 2, 2, y.shape[-1])]

    def reach(self, call: Call[Reach]) -> Any:
        x, y, weight, bias = (call[name] for name in ("input1", "input2", "weight", "bias"))
        product = torch.nn.functional.bilinear
        found = product(x.depends, y.nonzero, weight.nonzero) + product(x.nonzero, y.depends, weight.nonzero)
        found = found + product(x.nonzero, y.nonzero, weight.depends)
        return found + bias.depends if isinstance(bias, Reach) else found


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
class Convolution(Affine):
    """Convolutions with any number of dimensions, grouped or not, transposed or not."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, weight = call["input"].dims, call["weight"].dims
        spatial, groups = len(weight) - 2, int(call.get("groups", 1))
        consumed, made = (weight[0], weight[1]) if self._transposed(call) else (weight[1], weight[0])
        for dim in (*dims[len(dims) - spatial :], *weight[2:]):
            pin(dim, f"{call.name} runs along it")
        channels, reason = dims[len(dims) - spatial - 1], MATCH.format(call.name)
        if groups > 1:  # the weight has all channels of one side, and the channels of one group of the other
            group, inner = Axis(groups), Axis(channels.size // groups)
            unify(channels, product([group, inner]), reason)
            if self._transposed(call):
                unify(consumed, product([group, inner]), reason)
                made = product([group, made])
            else:
                unify(consumed, inner, reason)
                unify(made, product([group, Axis(made.size // groups)]), reason)
        else:
            unify(channels, consumed, reason)
        if isinstance(call["bias"], Shaped):
            unify(made, call["bias"].dims[0], reason)
        out = all_pinned(call.value.shape, f"made by {call.name}")
        return [*dims[: len(dims) - spatial - 1], made, *out[len(out) - spatial :]]

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        return [(1, 0 if self._transposed(call) else 1)]

    def weighs(self, call: Call[Reach]) -> list[Products]:
        x, groups = call["input"].depends, int(call.get("groups", 1))
        channels = x.dim() - call["weight"].depends.dim() + 1  # the dimension before the spatial ones
        if groups > 1 and not self._transposed(call):  # the filters of a group read all of its channels
            return [Products(0, channels, 1, 0, groups)]
        return [Products(0, channels, 1, 0 if self._transposed(call) else 1, x.shape[channels])]

    def _transposed(self, call: Call[Any]) -> bool:
        return "transpose" in call.name or bool(call.get("transposed", False))

    def product(self, call: Call[Any], x: Tensor, weight: Tensor) -> Tensor:
        names = ("stride", "padding", "dilation", "groups", "output_padding")
        options = {name: call[name] for name in names if name in call.args}
        spatial = weight.dim() - 2
        if not self._transposed(call):
            options.pop("output_padding", None)
        form = "conv_transpose" if self._transposed(call) else "conv"
        function = getattr(torch.nn.functional, f"{form}{spatial}d")
        found: Tensor = function(x, weight, None, **options)
        return found

    def after(self, rank: int) -> int:
        return rank - 2


@rule("matmul", "mm", "bmm", "mv", "dot")
class Matmul(OperatorRule):
    """Matrix products, including stacks of matrices."""

    adds_up = True

    def shape(self, call: Call[Shaped]) -> Any:
        x, y = self._factors(call)
        reason = MATCH.format(call.name)
        unify(x.dims[-1], y.dims[-2] if len(y.dims) > 1 else y.dims[-1], reason)
        made = [*x.dims[-2:-1], *(y.dims[-1:] if len(y.dims) > 1 else [])]
        return broadcast([[*x.dims[:-2], *made], [*y.dims[:-2], *made]], call.name, call.value.shape)

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        x, y = self._factors(call)
        first = len(call.tensors) - 2
        return [(first, len(x.dims) - 1), (first + 1, max(0, len(y.dims) - 2))]

    def weighs(self, call: Call[Reach]) -> list[Products]:
        x, y = (factor.depends for factor in self._factors(call))
        first, rows = len(call.tensors) - 2, max(0, y.dim() - 2)
        before, behind = (first, x.dim() - 1), (first + 1, rows)
        return [Products(*before, *behind, x.shape[-1]), Products(*behind, *before, x.shape[-1])]

    def reach(self, call: Call[Reach]) -> Any:
        return bilinear(torch.matmul, *self._factors(call))

    def _factors(self, call: Call[Any]) -> tuple[Any, Any]:
        x, y = call.tensors
        return x, y


@rule("addmm", "baddbmm")
class ShiftedMatmul(Matmul):
    """Matrix products with a shift: b + x y."""

    def shape(self, call: Call[Shaped]) -> Any:
        return broadcast([super().shape(call), call["self"].dims], call.name, call.value.shape)

    def reach(self, call: Call[Reach]) -> Any:
        return super().reach(call) + call["self"].depends

    def _factors(self, call: Call[Any]) -> tuple[Any, Any]:
        _, x, y = call.tensors
        return x, y


@rule("scaled_dot_product_attention")
class Attention(OperatorRule):
    """Attention, softmax(q kᵀ / √d + mask) v; if the scale comes from the size of the heads, that size is pinned."""

    adds_up = True

    def shape(self, call: Call[Shaped]) -> Any:
        q, k, v = (call[name].dims for name in ("query", "key", "value"))
        reason = MATCH.format(call.name)
        unify(q[-1], k[-1], reason)
        unify(k[-2], v[-2], reason)
        if call["scale"] is None:
            pin(q[-1], f"{call.name} scales by its size")
        pin(k[-2], f"{call.name} runs along it")
        if call.get("enable_gqa"):  # several queries for each key
            unify(k[-3], v[-3], reason)
            unify(q[-3], product([k[-3], Axis(q[-3].size // k[-3].size)]), reason)
            k, v = ([*dims[:-3], q[-3], *dims[-2:]] for dims in (k, v))
        before = broadcast([q[:-2], k[:-2], v[:-2]], call.name, call.value.shape[:-2])
        if isinstance(call["attn_mask"], Shaped):
            mask = call["attn_mask"].dims
            scores = [*before, q[-2], k[-2]][-len(mask) :]
            for a, b in zip(scores, mask, strict=True):
                if a.size == b.size and b.size > 1:
                    unify(a, b, reason)
        return [*before, q[-2], v[-1]]

    def reach(self, call: Call[Reach]) -> Any:
        q, k, v = (call[name] for name in ("query", "key", "value"))
        if call.get("enable_gqa"):
            times = q.depends.shape[-3] // k.depends.shape[-3]
            k, v = (Reach(*(t.repeat_interleave(times, -3) for t in (x.value, x.depends))) for x in (k, v))
        turned = Reach(k.value.transpose(-1, -2), k.depends.transpose(-1, -2))
        scores = bilinear(torch.matmul, q, turned)
        if isinstance(call["attn_mask"], Reach):
            scores = scores + call["attn_mask"].depends
        chosen = scores.sum(dim=-1, keepdim=True).expand(scores.shape)  # softmax: each element depends on all
        return chosen @ v.nonzero + torch.ones_like(scores) @ v.depends
