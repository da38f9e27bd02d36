"""Batch norms folded into the layers whose outputs they normalise."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from torchlasso._core.running import ExampleInputs
from torchlasso.graph.operators import arguments
from torchlasso.graph.tracing import Trace, trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
LAYERS = frozenset(
    getattr(getattr(torch.ops.aten, name), kind)
    for name, kind in {
        **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d"), "default"),
        **dict.fromkeys(("conv_transpose2d", "conv_transpose3d"), "input"),
    }.items()
)


def fold_batch_norms(model: nn.Module, example_inputs: ExampleInputs) -> tuple[nn.Module, int]:
    """Fold batch norms into the convolutions and linear layers before them: the same outputs, and a pass less.

    A batch norm is y = γ (x - μ) / √(σ² + ε) + β with constants in evaluation, so a layer x = W u + b before it becomes
    one with the weights γ / √(σ² + ε) · W. Only pairs are folded of which the layer's outputs go nowhere else, and
    whose modules are torch's own, run once, and have neither hooks nor parametrizations.

    Args:
        model: a model in evaluation mode; it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Returns:
        A copy with ``nn.Identity`` in the place of the batch norms, and their number.

    Raises:
        ValueError: the model cannot be exported.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> fold_batch_norms(net, torch.randn(2, 3, 8, 8))[0][1]
    Identity()
    """
    graph = trace(model, example_inputs, lambda target: target in LAYERS or target is NORM)
    folded = copy.deepcopy(model)
    count = 0
    for node in graph.nodes:
        pair = _pair(graph, model, node) if node.target is NORM else None
        if pair is not None:
            layer, norm = pair
            _replace(folded, model, layer, _fused(layer, norm))
            _replace(folded, model, norm, nn.Identity())
            count += 1
    return folded, count


def _pair(graph: Trace, model: nn.Module, node: fx.Node) -> tuple[nn.Module, nn.Module] | None:
    """Return the layer and the batch norm that a call of the latter consists of, if they can be folded."""
    given = arguments(node)
    before = given["input"]
    if before.target not in LAYERS or len(before.users) != 1:
        return None
    layer = _owner(graph, model, arguments(before)["weight"], "weight")
    norm = _owner(graph, model, given["running_mean"], "running_mean")
    if layer is None or norm is None:
        return None
    if type(layer) not in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED) or type(norm) not in NORMS:
        return None
    if type(layer) is nn.Linear and before.meta["val"].dim() != 2:  # its outputs are not the channels
        return None
    return layer, norm


def _owner(graph: Trace, model: nn.Module, node: Any, role: str) -> nn.Module | None:
    """Return the plain module whose tensor a node is, if it runs once."""
    name = graph.names.get(node, "") if isinstance(node, fx.Node) else ""
    path, _, last = name.rpartition(".")
    if last != role or not path or len(node.users) != 1:
        return None
    owner = model.get_submodule(path)
    hooks = (owner._forward_hooks, owner._forward_pre_hooks)
    return None if any(hooks) or "forward" in vars(owner) else owner


def _fused(layer: Any, norm: Any) -> Any:
    if norm.weight is None:  # torch cannot fuse a linear layer with a batch norm without scales
        norm = copy.deepcopy(norm)
        norm.weight, norm.bias = nn.Parameter(torch.ones_like(norm.running_var)), nn.Parameter(0 * norm.running_var)
    if type(layer) is nn.Linear:
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=type(layer) in TRANSPOSED)


def _replace(copied: nn.Module, model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module into a copy of a model wherever the model has the old one."""
    for name, module in model.named_modules(remove_duplicate=False):
        if module is old:
            copied.set_submodule(name, new)
