"""Operators that mix the positions of an image or a sequence and keep its channels separate."""

from __future__ import annotations

from typing import Any

import torch

from torchlasso.graph.axes import Axis, pin, product
from torchlasso.graph.operators import Call, OperatorRule, Reach, Shaped, all_pinned, pin_all, rule
from torchlasso.graph.unification import unify


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
      "adaptive_max_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "max_pool2d_with_indices",
      "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
      "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact1d",
      "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "reflection_pad1d", "reflection_pad2d",
      "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "lp_pool2d")  # fmt: skip
class Spatial(OperatorRule):
    """Operators on each channel separately; any position may depend on any other position in its channel."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call.tensors[0].dims
        first = call.value[0] if call.several else call.value
        spatial = self._spatial(call)
        for dim in dims[len(dims) - spatial :]:
            pin(dim, f"{call.name} runs over it")
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
class PixelShuffle(OperatorRule):
    """Channels that become positions, r·r channels together."""

    def shape(self, call: Call[Shaped]) -> Any:
        *batch, channels, _, _ = call["self"].dims
        out = all_pinned(call.value.shape, f"made by {call.name}")
        r = int(call["upscale_factor"])
        kept = Axis(channels.size // (r * r))
        unify(channels, product([kept, *all_pinned([r, r], call.name)]), call.name)
        return [*batch, kept, *out[-2:]]

    def reach(self, call: Call[Reach]) -> Any:
        return torch.pixel_shuffle(call["self"].depends, call["upscale_factor"])


@rule("grid_sampler_2d", "grid_sampler_3d")
class GridSample(OperatorRule):
    """Each channel read at computed positions."""

    def shape(self, call: Call[Shaped]) -> Any:
        batch, channels, *places = call["input"].dims
        pin_all((*places, *call["grid"].dims[1:]), f"{call.name} runs over it")
        unify(batch, call["grid"].dims[0], f"{call.name} needs equal sizes")
        return [batch, channels, *all_pinned(call.value.shape, f"made by {call.name}")[2:]]

    def reach(self, call: Call[Reach]) -> Any:
        x, grid = call["input"], call["grid"]
        places = tuple(range(2, x.depends.dim()))
        read, there = x.depends.sum(places, keepdim=True), x.nonzero.amax(places, keepdim=True)
        where = grid.depends.flatten(1).sum(1).reshape(-1, *[1] * (x.depends.dim() - 1))
        return (read + where * there).expand(call.value.shape)
