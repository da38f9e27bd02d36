"""Layers of low rank as two layers, which together have fewer weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.running import ExampleInputs
from torchlasso.compaction.own_precision import outputs_or_none, same_outputs
from torchlasso.compaction.report import FactoredLayer
from torchlasso.compaction.verify import others_like

CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class LayerError(ValueError):
    """A model has no layer like one that became two."""


class LowRank(nn.Sequential):
    """Two layers in the place of a linear layer or a convolution whose weight is a product of two small matrices.

    With the weight W = B·A as a matrix of outputs times inputs, of rank r, the first layer has the weight A,
    (r, inputs), and no bias, and the second one the weight B, (outputs, r), and the bias. The first one of a
    convolution has its kernel, stride, padding and dilation, and the second one a kernel of 1.
    """

    @classmethod
    def like(cls, layer: Any, rank: int, inputs: int, outputs: int) -> LowRank:
        """Return two layers without values in the place of a layer.

        Args:
            layer: a linear layer or a convolution.
            rank: the number of outputs of the first one.
            inputs, outputs: those of both together, such as channels.

        Raises:
            ValueError: the layer is of another kind.
        """
        if not can_be_two(layer):
            raise ValueError(f"{type(layer).__name__} is no linear layer or convolution without groups")
        options: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        bias = layer.bias is not None
        if type(layer) is nn.Linear:
            made = nn.Linear(inputs, rank, bias=False, **options), nn.Linear(rank, outputs, bias, **options)
        else:
            shape = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
            one: Any = type(layer)
            first = one(inputs, rank, layer.kernel_size, bias=False, **shape, **options)
            made = first, one(rank, outputs, 1, bias=bias, **options)
        for each in made:
            each.weight.requires_grad_(layer.weight.requires_grad)
        if bias:
            made[1].bias.requires_grad_(layer.bias.requires_grad)
        return cls(*made).train(layer.training)


def can_be_two(layer: Any) -> bool:
    """Return whether a layer may be replaced by two: torch's own, without groups, hooks or parametrizations."""
    if type(layer) is not nn.Linear and not (type(layer) in CONVOLUTIONS and layer.groups == 1):
        return False
    return layer.weight is not None and not any(getattr(layer, name, None) for name in HOOKS)


def factored(layer: Any) -> LowRank | None:
    """Return two layers with the same outputs, or None if they would not have fewer weights.

    A singular value counts as zero as in ``SingularValues``: up to σ_max · max(rows, columns) · ε.
    """
    weight: Tensor = layer.weight.detach()
    if not weight.is_floating_point() or weight.is_meta or not bool(weight.isfinite().all()):
        return None
    matrix = weight.double().flatten(1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > s[:1] * max(matrix.shape) * torch.finfo(weight.dtype).eps).sum())
    if not rank or rank * sum(matrix.shape) >= matrix.numel():
        return None
    two = LowRank.like(layer, rank, weight.shape[1], weight.shape[0])
    root = s[:rank].sqrt()
    first: Any
    second: Any
    first, second = two
    with torch.no_grad():  # copied with rounding to their dtype
        first.weight.copy_((root[:, None] * vh[:rank]).view_as(first.weight))
        second.weight.copy_((u[:, :rank] * root).view_as(second.weight))
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return two


def factor_(model: nn.Module, example_inputs: ExampleInputs) -> tuple[list[FactoredLayer], list[str]]:
    """Replace layers of low rank by two layers each, where the outputs of the model stay the same.

    Outputs are compared in evaluation and in the model's own precision, on the example and on random inputs like it: to
    1e-5 of the largest one. If a comparison fails, such as for a model that reads the weight of a layer itself, the
    layer stays.

    Args:
        model: it is changed.
        example_inputs: its example inputs.

    Returns:
        The layers that became two, and the names of layers of low rank that stay.
    """
    found = {name: two for name, layer in _alone(model) if (two := factored(layer)) is not None}
    if not found:
        return [], []
    runs = [(inputs, outputs_or_none(model, inputs)) for inputs in (example_inputs, others_like(example_inputs))]

    def kept(names: Iterable[str]) -> list[str]:
        """Replace some layers; put them back, and return none, if that changes the outputs."""
        old = {name: model.get_submodule(name) for name in names}
        for name in old:
            model.set_submodule(name, found[name])
        if all(outputs is None or same_outputs(outputs, model, inputs) for inputs, outputs in runs):
            return [*old]
        for name, layer in old.items():
            model.set_submodule(name, layer)
        return []

    names = kept(found) or [name for each in found for name in kept([each])]
    return [_described(name, found[name]) for name in names], [name for name in found if name not in names]


@contextmanager
def with_layers_as_two(model: nn.Module, shapes: Mapping[str, tuple[int, int, int]]) -> Iterator[None]:
    """Replace layers of a model by two layers without values; put them back if the block fails.

    Args:
        model: a model, in which some of these layers may be two already.
        shapes: the rank, the inputs and the outputs of each layer, by its path.

    Raises:
        LayerError: the model has no such layer.
    """
    old: dict[str, nn.Module] = {}
    try:
        for name, shape in shapes.items():
            layer = _replaceable(model, name, shape)
            two = None if isinstance(layer, LowRank) else LowRank.like(layer, *shape)
            if two is not None:
                old[name] = layer
                model.set_submodule(name, two)
        yield
    except BaseException:
        for name, layer in old.items():
            model.set_submodule(name, layer)
        raise


def _replaceable(model: nn.Module, name: str, shape: tuple[int, int, int]) -> nn.Module:
    """Return a layer that may be replaced by two of this rank, with no more inputs and outputs than it has."""
    try:
        layer: Any = model.get_submodule(name)
    except AttributeError as error:
        raise LayerError(f"it has no layer {name!r:.80}, which became two") from error
    if not isinstance(layer, LowRank):
        rank, inputs, outputs = shape
        if not can_be_two(layer):
            raise LayerError(f"{name!r:.80} became two layers, and is a {type(layer).__name__} in the model")
        if outputs > len(layer.weight) or inputs > layer.weight.shape[1] or rank > layer.weight.flatten(1).shape[1]:
            raise LayerError(f"{name!r:.80} became two layers that are larger than it is in the model")
    found: nn.Module = layer
    return found


def _alone(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers that may be replaced: neither they nor their parameters are anywhere else in the model."""
    layers = Counter(id(layer) for _, layer in model.named_modules(remove_duplicate=False))
    holders = Counter(id(p) for layer in model.modules() for p in layer._parameters.values() if p is not None)
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if name
        and can_be_two(layer)
        and layers[id(layer)] == 1
        and all(holders[id(p)] == 1 for p in layer.parameters())
    ]


def _described(name: str, two: LowRank) -> FactoredLayer:
    first, second = (layer.weight for layer in two)
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return FactoredLayer(name, len(first), len(second) * first[0].numel(), first.numel() + second.numel())
