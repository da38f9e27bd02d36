"""Operators that treat every element alike, and those that make something out of many elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, pin, pinned, product, unify
from torchlasso.graph.operators import Call, Dims, Reach, Rule, Shaped, all_pinned, pin_all, rule


@rule("pointwise", "hardswish", "_to_copy", "to", "contiguous", "dropout", "type_as", "expand_as", "fill", "copy",
      "triu", "tril", "alias", "detach", "lift_fresh_copy", "alpha_dropout", "feature_dropout")  # fmt: skip
class Pointwise(Rule):
    """Each element out of those at the same place, with broadcasting: the dimensions are the same."""

    def shape(self, call: Call[Shaped]) -> Any:
        return broadcast([tensor.dims for tensor in call.tensors], call.name, call.value.shape)

    def reach(self, call: Call[Reach]) -> Any:
        return sum(tensor.depends.expand(call.value.shape) for tensor in call.tensors)


def broadcast(several: list[Dims], name: str, shape: Sequence[int]) -> Dims:
    """The dimensions of tensors that an operator broadcasts together to a shape."""
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
    """What is dropped even in evaluation."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call.tensors[0].dims
        return list(dims), list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        x = call.tensors[0]
        return x.depends + x.nonzero, torch.ones_like(x.depends)


@rule("mul", "multiply")
class Multiply(Pointwise):
    """What is multiplied by zero is zero."""

    def reach(self, call: Call[Reach]) -> Any:
        if not all(isinstance(call[name], Reach) for name in ("self", "other")):
            return super().reach(call)
        return bilinear(torch.mul, call["self"], call["other"])


def bilinear(function: Any, x: Reach, y: Reach) -> Tensor:
    """What depends on the inputs in a product: where either factor does and the other may be other than zero."""
    found: Tensor = function(x.depends, y.nonzero)
    return found if y.fixed else found + function(x.nonzero, y.depends)


@rule("div", "divide")
class Divide(Pointwise):
    """Zero divided by anything is zero."""

    def reach(self, call: Call[Reach]) -> Any:
        x, y = call["self"], call["other"]
        if not isinstance(x, Reach) or not isinstance(y, Reach):
            return super().reach(call)
        return x.depends + x.nonzero * y.depends


@rule("prelu", "_prelu_kernel")
class Prelu(Rule):
    """Each channel has its own slope, or all have one."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims, slopes = call["self"].dims, [dim for dim in call["weight"].dims if dim.size > 1]
        if slopes:
            unify(dims[1 if len(dims) > 1 else 0], slopes[0], "prelu has a slope for each")
        return list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        return call["self"].depends


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort", "logcumsumexp",
      "flip", "roll")  # fmt: skip
class Along(Rule):
    """Each element out of all along one dimension, which has to stay as it is."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        given = call.get("dim", call.get("dims"))
        places = [given] if isinstance(given, int) else given if given else range(len(dims))
        for place in places:
            pin(dims[place], f"{call.name} goes along it")
        return call.each(list(dims))

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        given = call.get("dim", call.get("dims"))
        places = given if given is not None else list(range(depends.dim()))
        if depends.dim() == 0:
            return depends
        spread = depends.sum(places, keepdim=True).expand(depends.shape)
        return call.each(spread)


@rule("reduction")
class Reduction(Rule):
    """One element out of all along some dimensions. A sum and a norm can do without zeros, anything else cannot."""

    adds_up = True

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        places, keep = self._places(call, len(dims)), call.get("keepdim", False)
        if not call.name.startswith("sum") and not (call.name == "linalg_vector_norm" and call["ord"] >= 0):
            for place in places:
                pin(dims[place], f"{call.name} is over it")
        one = [
            pinned(1, "there is only one") if place in places else dim
            for place, dim in enumerate(dims)
            if keep or place not in places
        ]
        return call.each(one)

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        places = self._places(call, depends.dim())
        found = depends.sum(places, keepdim=call.get("keepdim", False)) if places else depends
        return call.each(found)

    def _places(self, call: Call[Any], rank: int) -> list[int]:
        given = call.get("dim")
        places = [given] if isinstance(given, int) else given if given else range(rank)
        return [place % rank for place in places] if rank else []


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
class Like(Rule):
    """A new tensor of the same shape. If it is random, each of its numbers depends on how many come before."""

    def shape(self, call: Call[Shaped]) -> Any:
        if call.name.startswith("rand"):
            pin_all(call["self"].dims, f"{call.name} draws a number for each")
        return list(call["self"].dims)

    def reach(self, call: Call[Reach]) -> Any:
        return made(call)


@rule("zeros", "ones", "full", "empty", "arange", "eye", "scalar_tensor", "linspace", "rand", "randn", "randint",
      "randperm", "new_zeros", "new_ones", "new_full", "new_empty", "tril_indices", "triu_indices")  # fmt: skip
class Make(Rule):
    """A new tensor of the shape that it is told. It can become smaller if it is everywhere the same."""

    def shape(self, call: Call[Shaped]) -> Any:
        if call.name.removeprefix("new_") in ("zeros", "ones", "full", "empty"):
            return [Axis(size) for size in call.value.shape]
        return all_pinned(call.value.shape, f"made by {call.name}")

    def reach(self, call: Call[Reach]) -> Any:
        return made(call)


def made(call: Call[Reach]) -> Tensor:
    """What is made without the inputs does not depend on them, unless by chance."""
    return torch.full(call.value.shape, float(call.name.startswith("rand")))


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
      "adaptive_max_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "max_pool2d_with_indices",
      "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
      "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact1d",
      "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "reflection_pad1d", "reflection_pad2d",
      "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "lp_pool2d")  # fmt: skip
class Spatial(Rule):
    """Mixes places and leaves channels apart; any place may depend on any other of the same channel."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call.tensors[0].dims
        first = call.value[0] if call.several else call.value
        spatial = self._spatial(call)
        for dim in dims[len(dims) - spatial :]:
            pin(dim, f"{call.name} is over it")
        out = dims[: len(dims) - spatial] + all_pinned(first.shape[len(dims) - spatial :], f"made by {call.name}")
        return call.each(out)

    def reach(self, call: Call[Reach]) -> Any:
        depends = call.tensors[0].depends
        first = call.value[0] if call.several else call.value
        places = tuple(range(-self._spatial(call), 0))
        found = depends.sum(places, keepdim=True).expand(first.shape)
        return call.each(found)

    def _spatial(self, call: Call[Any]) -> int:
        return next(int(letter) for letter in call.name if letter in "123")


@rule("pixel_shuffle")
class PixelShuffle(Rule):
    """Channels that become places: r·r of them go together."""

    def shape(self, call: Call[Shaped]) -> Any:
        *batch, channels, _, _ = call["self"].dims
        out = all_pinned(call.value.shape, f"made by {call.name}")
        r = int(call["upscale_factor"])
        kept = Axis(channels.size // (r * r))
        unify(channels, product([kept, *all_pinned([r, r], call.name)]), call.name)
        return [*batch, kept, *out[-2:]]

    def reach(self, call: Call[Reach]) -> Any:
        return torch.pixel_shuffle(call["self"].depends, call["upscale_factor"])
