"""Sizes that torch's modules keep in attributes, such as ``out_channels``: derived from tensors, and updated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from torchlasso._core.running import undisturbed
from torchlasso.compaction.removal import Removal
from torchlasso.graph.axes import Dim
from torchlasso.graph.operators import OperatorRule, Shaped, arguments, rule_of
from torchlasso.graph.precision import Precision
from torchlasso.graph.rules.contractions import Convolution
from torchlasso.graph.rules.norms import Norm
from torchlasso.graph.structure import Structure

LAYERS: tuple[type[OperatorRule], ...] = (
    Convolution,
    Norm,
)  # operators whose modules keep their number of channels


@dataclass(frozen=True)
class ChannelCounts:
    """The numbers of channels that the operator of a layer reads and computes."""

    channels_in: int
    channels_out: int


Derivation = Callable[[Any, tuple[int, ...], ChannelCounts | None], dict[str, int]]
DerivedSizes = dict[tuple[nn.Module, str], int]


def _linear(module: nn.Linear, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    made, consumed, *_ = weight
    return {"in_features": consumed, "out_features": made}


def _bilinear(module: nn.Bilinear, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    made, one, two, *_ = weight
    return {"in1_features": one, "in2_features": two, "out_features": made}


def _convolution(module: _ConvNd, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    if use is None:
        return {}
    whole, part, *_ = weight  # (out, in / groups), transposed (in, out / groups)
    other = use.channels_out if module.transposed else use.channels_in
    into, out = (whole, other) if module.transposed else (other, whole)
    return {"in_channels": into, "out_channels": out, "groups": other // part}


def _norm(module: _NormBase, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    return {"num_features": use.channels_in} if use else {}


def _group_norm(module: nn.GroupNorm, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    if use is None:
        return {}
    each = module.num_channels // module.num_groups  # groups are removed as a whole
    return {"num_channels": use.channels_in, "num_groups": use.channels_in // each}


def _embedding(module: nn.Embedding, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    return {"embedding_dim": weight[1]}


def _attention(module: nn.MultiheadAttention, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    made = len(module.out_proj.weight)
    keys, values = (made if w is None else w.shape[1] for w in (module.k_proj_weight, module.v_proj_weight))
    return {"embed_dim": made, "kdim": keys, "vdim": values, "head_dim": made // module.num_heads}


def _recurrent(module: Any, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    (rows, states), (_, consumed) = module.weight_hh_l0.shape, module.weight_ih_l0.shape
    projected = {"proj_size": states} if module.proj_size else {}
    return {"input_size": consumed, "hidden_size": rows // GATES.get(module.mode, 1), **projected}


def _cell(module: Any, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    (_, states), (_, consumed) = module.weight_hh.shape, module.weight_ih.shape
    return {"input_size": consumed, "hidden_size": states}


def _prelu(module: nn.PReLU, weight: tuple[int, ...], use: ChannelCounts | None) -> dict[str, int]:
    return {"num_parameters": weight[0]}


GATES = {"LSTM": 4, "GRU": 3}  # for each unit of a recurrent layer; an RNN has one

# the least number of dimensions of the weight (0 if the module may have none), and the derivation
DERIVATIONS: dict[type[nn.Module], tuple[int, Derivation]] = {
    nn.Linear: (2, _linear),
    nn.Bilinear: (3, _bilinear),
    _ConvNd: (3, _convolution),
    _NormBase: (0, _norm),
    nn.GroupNorm: (0, _group_norm),
    nn.Embedding: (2, _embedding),
    nn.MultiheadAttention: (0, _attention),
    nn.PReLU: (1, _prelu),
    nn.RNNBase: (0, _recurrent),
    nn.RNNCellBase: (0, _cell),
}


def derived_sizes(model: nn.Module, uses: dict[str, ChannelCounts], precision: Precision | None = None) -> DerivedSizes:
    """Derive the sizes in attributes of torch's modules from their tensors and the channels of their operators.

    Args:
        model: it is not changed.
        uses: the channels that the operators of its modules read and compute.
        precision: the precision of a copy that runs only in it; a parametrized weight is computed when it is read.
    """
    found: DerivedSizes = {}
    running = precision.running() if precision else contextlib.nullcontext()
    with undisturbed(model), running:  # in training, reading a spectrally normalised weight updates its buffers
        for path, module in model.named_modules():
            rank, numbers = next((DERIVATIONS[cls] for cls in type(module).__mro__ if cls in DERIVATIONS), (0, None))
            weight = getattr(module, "weight", None)
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
            if numbers is not None and len(shape) >= rank:
                values = numbers(module, shape, uses.get(path))
                found |= {(module, name): value for name, value in values.items()}
    return found


def set_derived_sizes_(before: DerivedSizes, after: DerivedSizes) -> None:
    """Update the sizes in attributes, unless they differed from the derived sizes before: a class may redefine them."""
    for (module, name), value in after.items():
        if vars(module).get(name) == before.get((module, name)):
            setattr(module, name, value)


def channel_counts(structure: Structure, removal: Removal) -> dict[str, ChannelCounts]:
    """Count the channels that the first convolution or normalisation of each module reads and computes."""
    found: dict[str, ChannelCounts] = {}
    for node in structure.trace.nodes:
        if node.op == "call_function" and isinstance(rule_of(node.target), LAYERS):
            args = arguments(node)
            x, y = dims_of(structure, args.get("input")), dims_of(structure, node)
            place = _channels(structure, node, args, len(x))
            found.setdefault(module_of(node), ChannelCounts(*(removal.size(dims[place]) for dims in (x, y))))
    return found


def _channels(structure: Structure, node: fx.Node, args: dict[str, Any], rank: int) -> int:
    """Return the dimension of the channels: a convolution's input may be without a batch."""
    if not isinstance(rule_of(node.target), Convolution):
        return 1
    return rank + 1 - len(dims_of(structure, args["weight"]))  # a weight has two dimensions besides the spatial ones


def dims_of(structure: Structure, node: Any) -> list[Dim]:
    """Return the dimensions of a value, or of the first of several results."""
    shape = structure.shapes.get(node)
    if isinstance(shape, tuple):
        shape = shape[0]
    return shape.dims if isinstance(shape, Shaped) else []


def module_of(node: fx.Node) -> str:
    """Return the path of the module whose forward calls an operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""
