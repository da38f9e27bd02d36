"""The graph of operators that a model runs on its inputs, as ``torch.export`` records it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx import config

from torchlasso._core.running import ExampleInputs, as_arguments, as_tree, quietly, repeatable
from torchlasso._core.text import first_line
from torchlasso.distributed.sharding import any_sharded
from torchlasso.graph.operators import arguments
from torchlasso.graph.outputs import run
from torchlasso.graph.precision import DOUBLE, SINGLE, Precision
from torchlasso.graph.recurrent_layers import STATES, divide_recurrent_layers_
from torchlasso.graph.unexported import reason_of

SHARDED = (
    "it is sharded, and its parts have the sizes that the parameters had then; find units before it is sharded, and "
    "compact the whole model, from a full state dict, in one process"
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)  # checks of dtypes, which fail in another precision


@dataclass(frozen=True)
class Trace:
    """The operators of a model in the order in which they run.

    Attributes:
        nodes: the nodes of the graph: placeholders, calls, and the output.
        names: the names in the model of placeholders that are parameters or buffers.
        tensors: the value of each placeholder; for parameters and buffers, the tensors of the model itself.
        fixed: placeholders of other tensors, such as constants in the code, which cannot become smaller.
        precision: float64, or float32 for a model that cannot run in float64.
        single: why the model cannot run in float64; empty if it can.
        outputs: the outputs of the model on the example, if they are known.
        alike: lists of weights whose dimensions keep equally many indices, such as those of a recurrent layer.
    """

    nodes: list[fx.Node]
    names: dict[fx.Node, str]
    tensors: dict[fx.Node, Any]
    fixed: set[fx.Node]
    precision: Precision = DOUBLE
    single: str = ""
    outputs: list[Tensor] | None = None
    alike: Sequence[Sequence[fx.Node]] = ()


def trace(model: nn.Module, example_inputs: ExampleInputs, known: Callable[[Any], bool]) -> Trace:
    """Record the operators that a model runs in evaluation, in float64 if possible, and on the CPU.

    Args:
        model: it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        known: returns whether an operator has a rule. Other operators are decomposed into simpler ones if torch has a
            decomposition.

    Raises:
        ValueError: the model cannot be exported; the message has torch's reason.
    """

    def stays(target: Any) -> bool:
        return target in STATES or known(target)

    try:
        with quietly():
            precision, single, outputs = _precision(model, example_inputs)
            args, kwargs = precision.tensors(as_arguments(example_inputs))
            with repeatable(), precision.running(), torch.enable_grad():
                program = _exported(model, args, kwargs, precision)
                if not all(_is_final(node, stays) for node in program.graph.nodes):
                    program = program.run_decompositions(_table(stays))
                program.graph.eliminate_dead_code()
            alike = divide_recurrent_layers_(program.graph)
    except Exception as error:  # of many kinds, from Dynamo to the model's own code
        raise ValueError(
            f"{type(model).__name__} cannot be exported, so its units are unknown: "
            f"{SHARDED if any_sharded(model.parameters()) else reason_of(error)}"
        ) from error
    made = [value for value in _values(program) if isinstance(value, Tensor)]
    if made and all(map(_is_empty, made)):  # then any two models compute the same
        raise ValueError(
            f"{type(model).__name__} returns no numbers for the example inputs: give at least one row, such as "
            f"x[:2]; got {', '.join(str(tuple(value.shape)) for value in made)}"
        )
    return replace(_read(model, program, args, kwargs, precision), single=single, outputs=outputs, alike=alike)


def _is_empty(value: Tensor) -> bool:
    """Return True if a size is zero; one that depends on the values of the inputs need not be."""
    return any(isinstance(size, int) and size == 0 for size in value.shape)


def _values(program: ExportedProgram) -> list[Any]:
    """Return the outputs of a program, without data."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    return [node.meta.get("val") for node in output.all_input_nodes]


def unexportable(model: nn.Module, example_inputs: ExampleInputs, precision: Precision) -> str:
    """Return the reason why a model cannot be exported in evaluation, or an empty string; it is not changed."""
    try:
        with quietly():
            args, kwargs = precision.tensors(as_arguments(example_inputs))
            with repeatable(), precision.running(), torch.enable_grad():
                _exported(model, args, kwargs, precision)
    except Exception as error:  # of many kinds, from Dynamo to the model's own code
        return reason_of(error)
    return ""


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], precision: Precision) -> ExportedProgram:
    from torch.export import export  # imported here, since it takes longer than the import of this whole library

    exact = precision.unwritten(model).eval()
    exact.register_forward_hook(lambda *given: as_tree(given[-1]))
    with _without_stack_traces():
        return export(exact, args, kwargs, strict=False)


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Let torch record no stack trace for each operator: it would not be read, and takes a fifth of an export."""
    before = getattr(config, "do_not_emit_stack_traces", False)  # without it, an older torch records them
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def _precision(model: nn.Module, example_inputs: ExampleInputs) -> tuple[Precision, str, list[Tensor] | None]:
    """Return the precision that a model can run in: float64 and the outputs, or float32 and the reason."""
    try:
        outputs = run(DOUBLE.copied(model), example_inputs, training=False)
    except Exception as error:  # of any kind: it is the model's own code, and in float32 it may run
        return SINGLE, first_line(error), None
    return DOUBLE, "", outputs


def _is_final(node: fx.Node, known: Callable[[Any], bool]) -> bool:
    """Return whether a node needs no decomposition: it has a rule, writes into no tensor, and is not in training."""
    if node.op != "call_function" or node.target is operator.getitem:
        return node.op in ("placeholder", "call_function", "output")
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable or not known(node.target):
        return False
    given = arguments(node)
    return not (given.get("train") or given.get("training"))


def _table(known: Callable[[Any], bool]) -> dict[Any, Any]:
    """Return torch's decompositions of operators without a rule."""
    from torch.export import default_decompositions

    table = default_decompositions()
    for target in list(table):
        if known(target):
            del table[target]
    return table


def _read(
    model: nn.Module, program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any], precision: Precision
) -> Trace:
    from torch.export.graph_signature import InputKind

    nodes = [node for node in program.graph.nodes if node.target not in CHECKS]
    for node in nodes:
        node.args, node.kwargs = torch.fx.node.map_aggregate((node.args, node.kwargs), precision.wide)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    given = iter(torch.utils._pytree.tree_leaves((args, kwargs)))
    own = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    first = _first_names(own)
    names, tensors, fixed = {}, {}, set()
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            tensors[node] = next(given)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            names[node], tensors[node] = first[spec.target], own[spec.target]
        else:
            token = spec.kind == InputKind.TOKEN  # an empty value that keeps effects in order
            tensors[node] = torch.zeros(0) if token else program.constants[spec.target]
            fixed.add(node)
    return Trace(nodes, names, {node: _plain(value) for node, value in tensors.items()}, fixed, precision)


def _first_names(own: dict[str, Tensor]) -> dict[str, str]:
    """Return, for each name of a parameter or buffer, the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in own.items()}


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def is_varying_number(node: fx.Node) -> bool:
    """Return whether a node is a number that depends on the values of the inputs, such as a count of selected rows."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)


def has_varying_size(node: fx.Node) -> bool:
    """Return whether a node is a tensor with a size that depends on the values of the inputs."""
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(size, torch.SymInt) for leaf in leaves if isinstance(leaf, Tensor) for size in leaf.shape)
