"""The operators that a model runs on its inputs, as ``torch.export`` writes them down."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """A model's operators in the order in which they run.

    Attributes:
        nodes: of the graph: placeholders, calls and at last the output.
        names: what placeholders of parameters and buffers are called in the model.
        tensors: the value of each placeholder, in float64 where it is a floating-point number, on the CPU.
        fixed: placeholders of tensors that are neither parameters nor buffers, and so cannot become smaller.
    """

    nodes: list[fx.Node]
    names: dict[fx.Node, str]
    tensors: dict[fx.Node, Any]
    fixed: set[fx.Node]


def as_arguments(example_inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a model: a tensor is the only one, a dict holds keyword arguments."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    return (tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)), {}


def in_double(value: Any) -> Any:
    """Floating-point tensors in float64, in whatever they are contained, and all tensors on the CPU."""

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.cpu().double() if leaf.is_floating_point() else leaf.cpu()

    return torch.utils._pytree.tree_map(moved, value)


def wide(value: Any) -> Any:
    """float64 for a floating-point type that is less exact."""
    narrow = isinstance(value, torch.dtype) and value in (torch.float32, torch.float16, torch.bfloat16)
    return torch.float64 if narrow else value


def doubled(model: nn.Module) -> nn.Module:
    """A copy of a model in float64 and on the CPU, with the tensors that are attributes of its modules and no buffers.

    Not every device has float64, and what is asked of the copy is one run or two.
    """
    model = copy.deepcopy(model).cpu().double()
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                setattr(module, name, in_double(value))
    return model


def trace(model: nn.Module, example_inputs: Inputs, known: Callable[[Any], bool]) -> Trace:
    """What a model runs in evaluation, in float64 and on the CPU.

    Args:
        model: is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        known: of an operator, whether it is understood; others are written as simpler ones where torch knows how.

    Raises:
        ValueError: the model cannot be exported; the message says what torch found.
    """
    from torch.export import export  # here, since it takes longer to import than all of this library

    args, kwargs = in_double(as_arguments(example_inputs))
    try:
        double = doubled(model).eval()
        with warnings.catch_warnings(), torch.enable_grad():  # the warnings are torch's own, about torch
            warnings.simplefilter("ignore")
            program = export(double, args, kwargs, strict=False)
            program = program.run_decompositions(_table(known))
    except Exception as error:  # of many kinds, from Dynamo to the model's own code
        raise ValueError(
            f"{type(model).__name__} cannot be exported, so its units are unknown: {first_line(error)}"
        ) from error
    return _read(model, program, args, kwargs)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _table(known: Callable[[Any], bool]) -> dict[Any, Any]:
    """How to write the operators that are not understood."""
    from torch.export import default_decompositions

    table = default_decompositions()
    for target in list(table):
        if known(target):
            del table[target]
    return table


def _read(model: nn.Module, program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    from torch.export.graph_signature import InputKind

    nodes = list(program.graph.nodes)
    for node in nodes:
        node.args, node.kwargs = torch.fx.node.map_aggregate((node.args, node.kwargs), wide)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    given = iter(torch.utils._pytree.tree_leaves((args, kwargs)))
    first = _first_names(model)
    names, tensors, fixed = {}, {}, set()
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            tensors[node] = next(given)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            names[node] = first.get(spec.target, spec.target)
            kept = program.state_dict.get(spec.target)
            tensors[node] = program.constants[spec.target] if kept is None else kept
        else:
            tensors[node] = program.constants[spec.target]
            fixed.add(node)
    return Trace(nodes, names, {node: _plain(value) for node, value in tensors.items()}, fixed)


def _first_names(model: nn.Module) -> dict[str, str]:
    """What each parameter or buffer is called where it occurs for the first time."""
    first: dict[int, str] = {}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in every}


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
