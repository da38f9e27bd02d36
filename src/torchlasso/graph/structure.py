"""The dimensions of all values of a model, followed through its operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchlasso.graph.axes import Axis, pinned, same_counts
from torchlasso.graph.operators import Call, Dims, Shaped, all_pinned, arguments, name_of, pin_all, rule_of
from torchlasso.graph.rules.opaque import UNKNOWN
from torchlasso.graph.tracing import Inputs, Trace, trace


@dataclass(frozen=True)
class Structure:
    """What a model is made of.

    Attributes:
        trace: its operators.
        shapes: the dimensions of each value.
        parameters: those of each parameter and buffer, by name.
        alike: dimensions that keep equally many indices.
        unknown: operators that are not understood, whose dimensions are pinned, and how often each occurs.
    """

    trace: Trace
    shapes: dict[fx.Node, Any]
    parameters: dict[str, list[Any]]
    alike: list[Dims] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)


def structure(model: nn.Module, example_inputs: Inputs) -> Structure:
    """Follow the dimensions of a model's tensors through its operators.

    Raises:
        ValueError: the model cannot be exported.
    """
    traced = trace(model, example_inputs, lambda target: rule_of(target) is not None)
    found = Structure(traced, {}, {})
    for node in traced.nodes:
        if node.op == "placeholder":
            found.shapes[node] = _placeholder(found, node)
        elif node.op == "call_function":
            found.shapes[node] = _call(found, node)
        elif node.op == "output":
            for value in node.all_input_nodes:
                if isinstance(found.shapes[value], Shaped):
                    pin_all(found.shapes[value].dims, "it is a dimension of an output")
    same_counts(found.alike, "pieces of equal size are made up differently")
    return found


def _placeholder(found: Structure, node: fx.Node) -> Any:
    tensor = found.trace.tensors[node]
    if not isinstance(tensor, Tensor):
        return tensor
    name = found.trace.names.get(node)
    if name is not None:  # one that several modules share is one
        if name not in found.parameters:
            found.parameters[name] = [_axis(size) for size in tensor.shape]
        return Shaped(found.parameters[name])
    fixed = node in found.trace.fixed
    return Shaped(all_pinned(tensor.shape, f"it is a dimension of {'a constant' if fixed else 'an input'}"))


def _axis(size: int) -> Axis:
    return Axis(size) if size != 1 else pinned(1, "there is only one")


def _call(found: Structure, node: fx.Node) -> Any:
    name = name_of(node.target).removeprefix("aten.")
    args = torch.fx.node.map_arg(arguments(node), lambda value: found.shapes[value])
    call: Call[Shaped] = Call(name, args, node.meta.get("val"))
    rule = rule_of(node.target)
    if rule is None:
        found.unknown[name] += 1
        rule = UNKNOWN
    shape = rule.shape(call)
    found.alike.extend(rule.alike(call, shape))
    return _wrapped(shape)


def _wrapped(shape: Any) -> Any:
    if isinstance(shape, tuple):
        return tuple(Shaped(dims) for dims in shape)
    return None if shape is None else Shaped(shape)
