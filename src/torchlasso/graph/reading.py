"""The elements of the inputs that a model reads, and the strengths with which it reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from torchlasso._core.running import ExampleInputs
from torchlasso.graph.operators import arguments, rule_of
from torchlasso.graph.rules.contractions import Linear
from torchlasso.graph.rules.shapes import Check, Reshape
from torchlasso.graph.units import UnitMap, find_units


def inputs_read(model: nn.Module, example_inputs: ExampleInputs) -> Tensor:
    """Return a mask of the elements of the inputs that can change the outputs.

    Args:
        model: any model that ``torch.export`` can export, with one tensor as its input; it is not changed.
        example_inputs: rows of this tensor.

    Returns:
        bool, of the shape of one row.

    Raises:
        ValueError: the model cannot be exported, or its inputs are not one tensor.

    Examples:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.zeros_(net[0].weight[0, 1])  # the first unit does not read input 1
        >>> _ = nn.init.zeros_(net[2].weight[0, 1])  # nothing reads the second unit
        >>> inputs_read(net, torch.randn(4, 3))
        tensor([ True, False,  True])
    """
    return read_in(find_units(model, example_inputs))


def read_in(units: UnitMap) -> Tensor:
    """Do what :func:`inputs_read` does for a model with known units; for new weights, pass ``units.now(model)``."""
    return units.flows[_given(units)].matters.any(dim=0)


def strengths_in(units: UnitMap) -> Tensor | None:
    """Return the strength with which each element of the inputs is read, if only linear layers read them.

    The strength is the Euclidean norm of all weights through which the element can change the outputs: float64, of the
    shape of one row. If anything but linear layers reads the inputs, it is None.
    """
    node = _given(units)
    shape = units.flows[node].value.shape[1:]
    squares = torch.zeros(math.prod(shape), dtype=torch.float64)
    for layer in _readers(node):
        if layer is None:
            return None
        w, made = units.flows[arguments(layer)["weight"]].value, units.flows[layer].matters
        if w.dim() != 2 or w.shape[1] != len(squares):
            return None
        squares += (w.square() * made.reshape(-1, len(w)).any(dim=0)[:, None]).sum(dim=0)  # (inputs,)
    return squares.sqrt().reshape(shape)


def _given(units: UnitMap) -> fx.Node:
    """Return the node of the inputs."""
    trace = units.structure.trace
    nodes = [node for node in trace.tensors if node not in trace.names and node not in trace.fixed]
    if len(nodes) != 1 or not isinstance(trace.tensors[nodes[0]], Tensor) or trace.tensors[nodes[0]].dim() < 2:
        raise ValueError(
            f"the inputs that are read can be found for one tensor (rows, ...); the model takes {len(nodes)} values"
        )
    return nodes[0]


def _readers(node: fx.Node) -> Iterator[fx.Node | None]:
    """Yield the linear layers that read a value, possibly reshaped, and None for any other reader."""
    for user in node.users:
        rule = rule_of(user.target) if user.op == "call_function" else None
        if isinstance(rule, Reshape):
            yield from _readers(user)
        elif isinstance(rule, Linear) and arguments(user)["input"] is node:
            yield user
        elif not isinstance(rule, Check):
            yield None
