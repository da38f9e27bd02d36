"""The dimensions of all values of a model, followed through its operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from torchlasso._core.running import ExampleInputs, repeatable
from torchlasso.graph.axes import Axis, pinned
from torchlasso.graph.operators import (
    Call,
    Dims,
    OperatorRule,
    Shaped,
    all_pinned,
    arguments,
    name_of,
    pin_all,
    rule_of,
)
from torchlasso.graph.rules.opaque import UNKNOWN, VARYING
from torchlasso.graph.tracing import Trace, has_varying_size, is_varying_number, trace
from torchlasso.graph.unification import same_counts


@dataclass(frozen=True)
class Structure:
    """The operators, dimensions and parameters of a model.

    Attributes:
        trace: the operators.
        shapes: the dimensions of each value.
        parameters: the dimensions of each parameter and buffer, by name.
        alike: dimensions that keep equally many indices.
        unknown: unknown operators, whose dimensions are pinned, and the number of times that each occurs.
    """

    trace: Trace
    shapes: dict[fx.Node, Any]
    parameters: dict[str, list[Any]]
    alike: list[Dims] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)


def structure(model: nn.Module, example_inputs: ExampleInputs) -> Structure:
    """Follow the dimensions of a model's tensors through its operators.

    Raises:
        ValueError: the model cannot be exported.
    """
    traced = trace(model, example_inputs, lambda target: rule_of(target) is not None)
    found, results = Structure(traced, {}, {}), _results(traced)
    for node in traced.nodes:
        if node.op == "placeholder":
            found.shapes[node] = _placeholder(found, node)
        elif node.op == "call_function":
            found.shapes[node] = _call(found, node, results[node])
        elif node.op == "output":
            for value in node.all_input_nodes:
                if isinstance(found.shapes[value], Shaped):
                    pin_all(found.shapes[value].dims, "it is a dimension of an output")
    for weights in traced.alike:
        found.alike.extend(map(list, zip(*(found.shapes[weight].dims for weight in weights), strict=True)))
    same_counts(found.alike, "parts of equal size, from a split or of a recurrent layer, are divided differently")
    return found


def _placeholder(found: Structure, node: fx.Node) -> Any:
    tensor = found.trace.tensors[node]
    if not isinstance(tensor, Tensor):
        return tensor
    name = found.trace.names.get(node)
    if name is not None:  # a shared parameter is followed once
        if name not in found.parameters:
            found.parameters[name] = [_axis(size) for size in tensor.shape]
        return Shaped(found.parameters[name], tensor.dtype)
    fixed = node in found.trace.fixed
    return Shaped(
        all_pinned(tensor.shape, f"it is a dimension of {'a constant' if fixed else 'an input'}"), tensor.dtype
    )


def _axis(size: int) -> Axis:
    return Axis(size) if size != 1 else pinned(1, "there is only one")


def rule_in(node: fx.Node) -> OperatorRule:
    """Return the rule of a call."""
    rule = rule_of(node.target) or UNKNOWN
    return rule if rule.local or not any(map(is_varying_number, node.all_input_nodes)) else VARYING


def _results(traced: Trace) -> dict[fx.Node, Any]:
    """Return the results of all calls without data; sizes that depend on values of the inputs are as in the example."""
    calls = [node for node in traced.nodes if node.op == "call_function"]
    if not any(is_varying_number(node) or has_varying_size(node) for node in calls):
        return {node: node.meta.get("val") for node in calls}
    found: dict[fx.Node, Any] = {node: traced.precision.widened(value) for node, value in traced.tensors.items()}
    with torch.no_grad(), repeatable(), traced.precision.running():
        for node in calls:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), found.__getitem__)
            target: Any = node.target
            found[node] = target(*args, **kwargs)
    return {node: tree_map(_without_data, found[node]) for node in calls}


def _without_data(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _call(found: Structure, node: fx.Node, value: Any) -> Any:
    if not isinstance(value, Tensor | tuple | list):
        return value
    name, rule = name_of(node.target).removeprefix("aten."), rule_in(node)
    args = torch.fx.node.map_arg(arguments(node), lambda value: found.shapes[value])
    call: Call[Shaped] = Call(name, args, value)
    if rule is UNKNOWN:
        found.unknown[name] += 1
    shape = rule.shape(call)
    found.alike.extend(rule.alike(call, shape))
    return _wrapped(shape, value)


def _wrapped(shape: Any, value: Any) -> Any:
    if isinstance(shape, tuple):
        return tuple(_wrapped(dims, part) for dims, part in zip(shape, value, strict=True))
    return None if shape is None else Shaped(shape, getattr(value, "dtype", None))
