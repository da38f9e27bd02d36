"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, pin, product
from torchlasso.graph.operators import Call, OperatorRule, Products, Reach, Shaped, all_pinned, rule
from torchlasso.graph.unification import unify

MATCH = "{} has a scale for each"
SAME = 1e-12  # a constant channel is the same in training and in evaluation, up to this


def scaled(call: Call[Reach], found: Tensor, after: int) -> Tensor:
    """Return the dependence on the inputs after scale and shift: none where a scale is zero.

    Args:
        call: the call, with an optional weight and bias.
        found: the dependence of the normalised elements.
        after: the number of dimensions after those of the scale and the shift.
    """
    weight, bias = call.get("weight"), call.get("bias")
    if isinstance(weight, Reach):
        shape = (*weight.depends.shape, *[1] * after)
        found = found * weight.nonzero.reshape(shape) + weight.depends.reshape(shape)
    if isinstance(bias, Reach):
        found = found + bias.depends.reshape(*bias.depends.shape, *[1] * after)
    return found


class Norm(OperatorRule):
    """Normalisation of channels, with optional scales and shifts."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call.tensors[0].dims
        for name in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(call.get(name), Shaped):
                unify(dims[1], call[name].dims[0], MATCH.format(call.name))
        return list(dims)


@rule("batch_norm", "_native_batch_norm_legit_no_training")
class BatchNorm(Norm):
    """Normalisation of each channel separately.

    In training, a constant channel becomes its shift. So it counts as a constant only if it does so in evaluation, too.
    """

    def shape(self, call: Call[Shaped]) -> Any:
        out = super().shape(call)
        if not call.several:
            return out
        return (out, *(all_pinned(value.shape, f"made by {call.name}") for value in call.value[1:]))

    def weighs(self, call: Call[Reach]) -> list[Products]:
        if not isinstance(call.get("weight"), Reach):
            return []
        return [Products(0, 1, 1, 0, call["weight"].depends.shape[0], adds_up=False)]

    def reach(self, call: Call[Reach]) -> Any:
        x, bias = call["input"], call.get("bias")
        around = [1, -1] + [1] * (x.depends.dim() - 2)
        shift = bias.value.reshape(around) if isinstance(bias, Reach) else 0.0
        value = call.value[0] if call.several else call.value
        differs = ((value - shift).abs() > SAME).float()
        whole = x.depends.amax([place for place in range(x.depends.dim()) if place != 1], keepdim=True)
        return self._results(call, scaled(call, x.depends, x.depends.dim() - 2) + differs * (whole == 0))

    def _results(self, call: Call[Reach], found: Tensor) -> Any:
        """Return the dependence of the normalised elements, and of the statistics that some operators also return."""
        return (found, *(torch.zeros(value.shape) for value in call.value[1:])) if call.several else found


@rule("_native_batch_norm_legit")
class BatchStatistics(BatchNorm):
    """Batch normalisation with the mean and the variance of the batch, in evaluation as well."""

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["input"].depends
        places = [place for place in range(depends.dim()) if place != 1]
        return self._results(
            call, scaled(call, depends.sum(places, keepdim=True).expand(depends.shape), len(places) - 1)
        )


@rule("instance_norm")
class InstanceNorm(Norm):
    """Normalisation of each channel of each image separately."""

    def reach(self, call: Call[Reach]) -> Any:
        depends = call.tensors[0].depends
        places = list(range(2, depends.dim()))
        return scaled(call, depends.sum(places, keepdim=True).expand(depends.shape), len(places))


@rule("group_norm")
class GroupNorm(Norm):
    """Normalisation of channels in groups of a fixed size: a group is removed as a whole or not at all."""

    def shape(self, call: Call[Shaped]) -> Any:
        out = super().shape(call)
        groups = int(call["num_groups"])
        group, inner = Axis(groups), Axis(out[1].size // groups)
        unify(out[1], product([group, inner]), f"{call.name} cuts across it")
        pin(inner, f"{call.name} normalises over it")
        for dim in out[2:]:
            pin(dim, f"{call.name} normalises over it")
        return out

    def reach(self, call: Call[Reach]) -> Any:
        depends = call.tensors[0].depends
        groups = depends.reshape(depends.shape[0], int(call["num_groups"]), -1)
        found = groups.sum(-1, keepdim=True).expand(groups.shape).reshape(depends.shape)
        return scaled(call, found, found.dim() - 2)


@rule("layer_norm", "rms_norm")
class LayerNorm(OperatorRule):
    """Normalisation over the last dimensions, which are pinned."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["input"].dims
        last = dims[len(dims) - len(call["normalized_shape"]) :]
        for dim in last:
            pin(dim, f"{call.name} normalises over it")
        for name in ("weight", "bias"):
            if isinstance(call.get(name), Shaped):
                for a, b in zip(last, call[name].dims, strict=True):
                    unify(a, b, MATCH.format(call.name))
        return list(dims)

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["input"].depends
        places = list(range(-len(call["normalized_shape"]), 0))
        return scaled(call, depends.sum(places, keepdim=True).expand(depends.shape), 0)
