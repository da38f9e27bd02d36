"""Operators that read or write elements at indices: indexed dimensions are pinned, the others pass through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, pin, pinned, product
from torchlasso.graph.operators import (
    Call,
    OperatorRule,
    Reach,
    Shaped,
    all_pinned,
    pin_all,
    rule,
    unify_all,
)
from torchlasso.graph.rules.shapes import Rearrangement
from torchlasso.graph.unification import sliced, unify


def differing(x: Reach, places: Sequence[int]) -> Tensor:
    """Return 1 where the elements along some dimensions differ, so that the choice of an index matters."""
    first: Tensor = x.value
    for place in places:
        first = first.narrow(place, 0, 1)
    apart: Tensor = (x.value != first) | (x.depends > 0)
    apart = apart.any(tuple(places), keepdim=True) if places else torch.zeros_like(apart)
    return apart.to(x.depends.dtype).expand(x.depends.shape)


def anywhere(found: Tensor, places: Sequence[int]) -> Tensor:
    """Make each element depend on all elements along some dimensions."""
    return found.sum(tuple(places), keepdim=True).expand(found.shape) if places else found


@rule("gather")
class Gather(OperatorRule):
    """Elements along one dimension, with different indices for each position in the others."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, index = call["self"].dims, list(call["index"].dims)
        place, reason = call.axis(len(dims)), f"{call.name} picks from it"
        for k, (dim, other) in enumerate(zip(dims, index, strict=True)):
            if k == place or dim.size != other.size:
                pin(dim, reason)
                pin(other, reason)
            else:
                unify(dim, other, reason)
        return index

    def reach(self, call: Call[Reach]) -> Any:
        x, index = call["self"], call["index"]
        if not x.depends.dim():
            return x.depends + index.depends
        place = call.axis(x.depends.dim())
        depends, apart = anywhere(x.depends, [place]), differing(x, [place])
        where = index.value
        return depends.gather(place, where) + index.depends * apart.gather(place, where)


@rule("index_select")
class IndexSelect(OperatorRule):
    """Selected indices of a dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = list(call["self"].dims)
        if out:
            place = call.axis(len(out))
            pin(out[place], f"{call.name} picks from it")
            out[place] = all_pinned(call.value.shape, f"made by {call.name}")[place]
        return out

    def reach(self, call: Call[Reach]) -> Any:
        x, index = call["self"], call["index"]
        if not x.depends.dim():
            return x.depends
        place = call.axis(x.depends.dim())
        fixed = not bool((index.depends > 0).any())
        depends = x.depends if fixed else anywhere(x.depends, [place])
        found = depends.index_select(place, index.value)
        return found + index.depends.sum() * differing(x, [place]).index_select(place, index.value)


class Indexed(OperatorRule):
    """Reading or writing ``x[i, :, j]``, where the indices are tensors of numbers or masks."""

    def places(self, call: Call[Any]) -> list[int]:
        """Return the indexed dimensions."""
        found, place = list[int](), 0
        for index in call["indices"]:
            taken = rank_of(index) if is_mask(index) else 1
            found += range(place, place + taken) if index is not None else []
            place += taken
        return found


def is_mask(index: Any) -> bool:
    return isinstance(index, Shaped | Reach) and index.dtype in (torch.bool, torch.uint8)


def rank_of(known: Shaped | Reach) -> int:
    return len(known.dims) if isinstance(known, Shaped) else known.depends.dim()


def where_of(call: Call[Reach]) -> list[Tensor | None]:
    """Return the indices in the run on the example."""
    return [None if index is None else index.value for index in call["indices"]]


def chosen(call: Call[Reach]) -> Tensor:
    """Return a number above 0 if any index depends on the inputs."""
    indices = [index for index in call["indices"] if index is not None]
    return sum((index.depends.sum() for index in indices), torch.zeros((), dtype=call["self"].depends.dtype))


@rule("index")
class Index(Indexed):
    """Reading ``x[i, :, j]``."""

    local = True

    def shape(self, call: Call[Shaped]) -> Any:
        dims, places = call["self"].dims, self.places(call)
        pin_all((dims[place] for place in places), f"{call.name} picks from it")
        left = [dim for place, dim in enumerate(dims) if place not in places]
        at = places[0] if places and places == list(range(places[0], places[-1] + 1)) else 0
        made = all_pinned(call.value.shape, f"made by {call.name}")
        return [*left[:at], *made[at : len(made) - len(left) + at], *left[at:]]

    def reach(self, call: Call[Reach]) -> Any:
        x, where, any_chosen, places = call["self"], where_of(call), chosen(call), self.places(call)
        depends = anywhere(x.depends, places) if bool(any_chosen > 0) else x.depends
        read: Any = torch.ops.aten.index.Tensor
        return read(depends, where) + any_chosen * read(differing(x, places), where)


@rule("index_put", "_unsafe_index_put")
class IndexPut(Indexed):
    """Writing ``x[i, :, j] = y``, or adding to it."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, reason = call["self"].dims, f"{call.name} writes into it"
        indices = [index for index in call["indices"] if index is not None]
        values, places = call["values"].dims, self.places(call)
        if len(indices) == 1 and is_mask(indices[0]) and all(dim.size == 1 for dim in values):
            for place, dim in zip(places, indices[0].dims, strict=True):  # each element separately
                unify(dims[place], dim, reason)
            return list(dims)
        pin_all((dims[place] for place in places), reason)
        left = [dim for place, dim in enumerate(dims) if place not in places]
        at = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
        made = [None] * max(1 if is_mask(index) else rank_of(index) for index in indices)
        read = [*left[:at], *made, *left[at:]]  # of ``x[i, :, j]``
        for dim, theirs in zip(reversed(read), reversed(values), strict=False):  # others are broadcast
            if dim is not None and dim.size == theirs.size:
                unify(dim, theirs, reason)
            else:
                pin(theirs, reason)
        return list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        x, y, where, any_chosen = call["self"], call["values"], where_of(call), chosen(call)
        put: Any = torch.ops.aten.index_put.default
        written = put(torch.zeros_like(x.depends), where, y.depends, True)
        if not bool(any_chosen > 0):
            return (
                x.depends + written
                if call["accumulate"]
                else put(x.depends, where, torch.zeros_like(y.depends)) + written
            )
        places = self.places(call)
        differs = x.value != y.value if y.value.numel() == 1 else torch.ones_like(x.value)
        (first, *others) = [index for index in call["indices"] if index is not None]
        if is_mask(first) and not others:
            ends = [1] * places[0], [1] * (x.depends.dim() - 1 - places[-1])
            any_chosen = first.depends.reshape(*ends[0], *first.depends.shape, *ends[1])
        spread = y.depends.sum() if y.value.numel() == 1 else anywhere(written, places)
        return x.depends + spread + any_chosen * differs.to(x.depends.dtype)


@rule("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_reduce", "index_fill")
class Scatter(OperatorRule):
    """Elements written or added along one dimension, with different indices for each position in the others."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, reason = list(call["self"].dims), f"{call.name} writes into it"
        for other in call.tensors[1:]:
            if len(other.dims) != len(dims):  # one list of indices for all
                pin_all(other.dims, reason)
                continue
            for k, (dim, theirs) in enumerate(zip(dims, other.dims, strict=True)):
                if k == call.axis(len(dims)) or dim.size != theirs.size:
                    pin(dim, reason)
                    pin(theirs, reason)
                else:
                    unify(dim, theirs, reason)
        return dims

    def reach(self, call: Call[Reach]) -> Any:
        x, index = call["self"], call["index"]
        source = call.get("src", call.get("source", call.get("value")))
        place = call.axis(x.depends.dim())

        def along(found: Tensor) -> Tensor:
            """Make each element of the result depend on all elements along the dimension."""
            if found.dim() != x.depends.dim() or any(
                k != place and found.shape[k] != size for k, size in enumerate(x.depends.shape)
            ):
                return found.sum().expand(x.depends.shape)
            return found.sum(place, keepdim=True).expand(x.depends.shape)

        if isinstance(source, Reach):
            written, matters = along(source.depends), along(source.nonzero) + along(x.nonzero)
        else:
            written, matters = torch.zeros_like(x.depends), along((x.value != source).to(x.depends.dtype))
        return x.depends + written + along(index.depends) * (matters > 0)


@rule("slice_scatter")
class SliceScatter(Rearrangement):
    """Writing ``x[:, a:b] = y``."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, src, reason = list(call["self"].dims), list(call["src"].dims), f"{call.name} writes into it"
        place = call.axis(len(dims))
        start, stop, step = slice(call.get("start"), call.get("end"), call["step"]).indices(dims[place].size)
        unify_all([[*each[:place], *each[place + 1 :]] for each in (dims, src)], reason)
        if step == 1 and src[place].size:
            unify(sliced(dims[place], start, max(start, stop), reason), src[place], reason)
        else:
            pin_all((dims[place], src[place]), reason)
        return dims

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        given = (call[name] for name in ("dim", "start", "end", "step"))
        found: Tensor = torch.slice_scatter(args["self"], args["src"], *given)
        return found


@rule("select_scatter")
class SelectScatter(Rearrangement):
    """Writing ``x[:, i] = y``."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, reason = list(call["self"].dims), f"{call.name} writes into it"
        place = call.axis(len(dims))
        pin(dims[place], reason)
        unify_all([[*dims[:place], *dims[place + 1 :]], call["src"].dims], reason)
        return dims

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = torch.select_scatter(args["self"], args["src"], call["dim"], call["index"])
        return found


@rule("unfold")
class Windows(Rearrangement):
    """Overlapping windows along a dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = list(call["self"].dims)
        place = call.axis(len(out), "dimension")
        pin(out[place], f"{call.name} runs along it")
        made = all_pinned(call.value.shape, f"made by {call.name}")
        return [*out[:place], made[place], *out[place + 1 :], made[-1]]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        found: Tensor = args["self"].unfold(call["dimension"], call["size"], call["step"])
        return found


@rule("im2col", "col2im")
class Patches(Rearrangement):
    """All patches of an image, (channels × positions in a patch, patches), or an image as the sum of its patches."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, reason = call["self"].dims, f"made by {call.name}"
        spatial = 2 if call.name == "im2col" else 1
        *batch, channels = dims[: len(dims) - spatial]
        pin_all(dims[len(dims) - spatial :], f"{call.name} runs along it")
        out = all_pinned(call.value.shape, reason)
        patch = pinned(math.prod(call["kernel_size"]), reason)
        if call.name == "im2col":
            return [*batch, product([channels, patch]), out[-1]]
        made = Axis(call.value.shape[-3])
        unify(channels, product([made, patch]), f"{call.name} cuts across it")
        return [*batch, made, *out[-2:]]

    def apply(self, call: Call[Reach], args: dict[str, Any]) -> Tensor:
        others = [value for name, value in args.items() if name != "self"]
        operator: Any = getattr(torch.ops.aten, call.name)
        found: Tensor = operator(args["self"], *others)
        return found
