"""Operators that rearrange elements without computing new ones."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, Dim, concatenated, pin, pinned, product
from torchlasso.graph.operators import Call, Dims, OperatorRule, Products, Reach, Shaped, all_pinned, rule, unify_all
from torchlasso.graph.unification import sliced, unify


class Rearrangement(OperatorRule):
    """Operators that rearrange elements: applied to the dependence of the inputs, they give that of the result."""

    def reach(self, call: Call[Reach]) -> Any:
        return self.apply(call, {name: _depends(value) for name, value in call.args.items()})

    @abstractmethod
    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Any:
        """Apply the operator to other arguments."""


def _depends(value: Any) -> Any:
    if isinstance(value, Reach):
        return value.depends
    return [_depends(part) for part in value] if isinstance(value, list | tuple) else value


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "squeeze_copy", "ravel",
      "_reshape_alias")  # fmt: skip
class Reshape(Rearrangement):
    """Reshapes: the same elements in the same order, so the product of all dimensions stays the same."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        before = [dim for dim in call["self"].dims if dim.size != 1]
        after: Dims = [Axis(size) if size != 1 else pinned(1, "there is only one") for size in call.value.shape]
        new = [dim for dim in after if dim.size != 1]
        if math.prod(call.value.shape) == 0:
            return all_pinned(call.value.shape, "it is empty")
        if before or new:
            unify(product(before), product(new), f"{call.name} cuts across it")
        return after

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].reshape(call.value.shape)
        return found


@rule("permute", "transpose", "t", "movedim", "swapaxes", "swapdims", "adjoint", "numpy_T", "mT")
class Permute(Rearrangement):
    """Permutations of dimensions."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        return [dims[place] for place in self.order(call, len(dims))]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].permute(self.order(call, args["self"].dim()))
        return found

    @staticmethod
    def order(call: Call[Any], rank: int) -> list[int]:
        """Return, for each dimension of the result, the dimension of the input that it comes from."""
        if "dims" in call.args:
            return [place % rank for place in call["dims"]]
        if "source" in call.args:
            named = torch.empty(tuple(range(rank)), device="meta")  # each dimension's size is its number
            return list(named.movedim(call["source"], call["destination"]).shape)
        if call.name == "numpy_T":
            return list(reversed(range(rank)))
        places = [call.axis(rank, name) for name in call.args if name != "self"] or [rank - 2, rank - 1]
        order = list(range(rank))
        if rank > 1:
            first, second = places
            order[first], order[second] = order[second], order[first]
        return order


@rule("expand", "broadcast_to")
class Expand(Rearrangement):
    """The same elements repeated along some dimensions, up to a given size."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        dims, sizes = call["self"].dims, call.value.shape
        return [
            dims[place] if len(dims) >= -place and dims[place].size == sizes[place] else Axis(sizes[place])
            for place in range(-len(sizes), 0)
        ]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].expand(call.value.shape)
        return found


@rule("repeat")
class Repeat(Rearrangement):
    """Dimensions repeated a number of times."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, times = call["self"].dims, call["repeats"]
        dims = [pinned(1, "there is only one") for _ in range(len(times) - len(dims))] + dims
        pairs = zip(dims, times, strict=True)
        return [dim if n == 1 else product([pinned(n, f"made by {call.name}"), dim]) for dim, n in pairs]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].repeat(call["repeats"])
        return found


@rule("slice")
class Slice(Rearrangement):
    """The part of a dimension between two indices."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = list(call["self"].dims)
        place = call.axis(len(out))
        size, reason = out[place].size, f"{call.name} takes a part of it"
        start, stop, step = slice(call.get("start"), call.get("end"), call.get("step", 1)).indices(size)
        if step == 1:
            out[place] = sliced(out[place], start, max(start, stop), reason)
        else:
            pin(out[place], reason)
            out[place] = pinned(call.value.shape[place], reason)
        return out

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = torch.ops.aten.slice(args["self"], call["dim"], call["start"], call["end"], call["step"])
        return found


@rule("select")
class Select(Rearrangement):
    """One index of a dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = list(call["self"].dims)
        pin(out.pop(call.axis(len(out))), f"{call.name} takes one index of it")
        return out

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].select(call["dim"], call["index"])
        return found


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes")
class Split(Rearrangement):
    """Parts of a dimension. Parts of equal size keep equal sizes, since the model's code may rely on it."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        place, start, out = call.axis(len(dims)), 0, []
        for part in call.value:
            size = part.shape[place]
            piece = sliced(dims[place], start, start + size, f"{call.name} cuts across it")
            out.append([*dims[:place], piece, *dims[place + 1 :]])
            start += size
        return tuple(out)

    def alike(self, call: Call[Shaped], shape: Any) -> list[Dims]:
        place = call.axis(len(call["self"].dims))
        pieces = [dims[place] for dims in shape]
        return [[dim for dim in pieces if dim.size == size] for size in {dim.size for dim in pieces}]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> tuple[Tensor, ...]:
        place = call.axis(args["self"].dim())
        found: tuple[Tensor, ...] = args["self"].split([part.shape[place] for part in call.value], place)
        return found


@rule("unbind")
class Unbind(Rearrangement):
    """All indices of a dimension, as separate tensors."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = list(call["self"].dims)
        pin(out.pop(call.axis(len(out))), f"{call.name} separates its indices")
        return tuple(list(out) for _ in call.value)

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = args["self"].unbind(call["dim"])
        return found


@rule("getitem")
class GetItem(OperatorRule):
    """One of several results."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        found: Shaped = call["0"][call["1"]]
        return found.dims

    def reach(self, call: Call[Reach]) -> Any:
        return call["0"][call["1"]].depends


@rule("cat", "concat", "concatenate")
class Cat(Rearrangement):
    """Tensors concatenated along a dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        parts = [part.dims for part in call["tensors"] if len(part.dims) == call.value.dim()]
        place = call.axis(len(parts[0]))
        unify_all([[*dims[:place], *dims[place + 1 :]] for dims in parts], f"{call.name} needs equal sizes")
        whole = concatenated(dims[place] for dims in parts)
        return [*parts[0][:place], whole, *parts[0][place + 1 :]]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        return torch.cat(args["tensors"], call["dim"])


@rule("stack")
class Stack(Rearrangement):
    """Tensors stacked along a new dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        parts = [part.dims for part in call["tensors"]]
        unify_all(parts, f"{call.name} needs equal sizes")
        out = list(parts[0])
        out.insert(call.axis(len(out) + 1), pinned(len(parts), f"made by {call.name}"))
        return out

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        return torch.stack(args["tensors"], call["dim"])


@rule("constant_pad_nd", "pad")
class Pad(Rearrangement):
    """Constants added before and after a dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        out, reason = list(call["self"].dims), f"made by {call.name}"
        for place, (before, after) in self._widths(call, len(out)):
            if before < 0 or after < 0:
                pin(out[place], f"{call.name} takes a part of it")
                out[place] = pinned(call.value.shape[place], reason)
            else:
                around: list[Dim] = [pinned(before, reason), out[place], pinned(after, reason)]
                out[place] = concatenated(dim for dim in around if dim.size)
        return out

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = torch.constant_pad_nd(args["self"], call["pad"], 0)
        return found

    def _widths(self, call: Call[Any], rank: int) -> list[tuple[int, tuple[int, int]]]:
        pad = call["pad"]
        return [(rank - 1 - i // 2, (pad[i], pad[i + 1])) for i in range(0, len(pad), 2)]


@rule("embedding")
class Embedding(OperatorRule):
    """Embeddings: a row of the weight for each index."""

    def shape(self, call: Call[Shaped]) -> Any:
        rows, columns = call["weight"].dims
        pin(rows, f"{call.name} looks up its indices")
        return [*call["indices"].dims, columns]

    def weighs(self, call: Call[Reach]) -> list[Products]:
        return [Products(1, None, 0, 0, 1)]

    def reach(self, call: Call[Reach]) -> Any:
        weight: Reach = call["weight"]
        differs = (weight.value != weight.value[:1]).any(dim=0)  # where all rows are equal, the index has no effect
        fixed = torch.nn.functional.embedding(call["indices"].value, weight.depends)
        return call["indices"].depends[..., None] * differs + fixed


@rule("_assert_tensor_metadata", "_assert_async", "sym_size", "_assert_scalar")
class Check(OperatorRule):
    """Checks, whose results no operator reads."""

    def shape(self, call: Call[Shaped]) -> Any:
        return None

    def reach(self, call: Call[Reach]) -> Any:
        return None
