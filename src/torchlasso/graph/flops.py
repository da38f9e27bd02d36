"""The operations of each unit of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchlasso._core.flops import counted_flops
from torchlasso.graph.axes import Axis, axes_of
from torchlasso.graph.operators import Shaped
from torchlasso.graph.recurrence import lstm_cells
from torchlasso.graph.structure import Structure


def flops_of_units(structure: Structure) -> dict[Axis, float]:
    """Return for each axis the floating-point operations of one of its units, in a run on the example inputs.

    If a dimension of a matrix product, convolution or attention consists of n units, each has one n-th of its
    operations. The layer that computes a unit and the layers that read it both count.
    """
    found: dict[Axis, float] = {}
    for node in structure.trace.nodes:
        flops = _flops(node) if node.op == "call_function" else 0
        if not flops:
            continue
        shapes = (structure.shapes.get(value) for value in (node, *node.all_input_nodes))
        dims = [dim for shape in shapes if isinstance(shape, Shaped) for dim in shape.dims]
        for axis in {axis for dim in dims for axis in axes_of(dim)}:
            found[axis] = found.get(axis, 0.0) + flops / axis.size
    return found


def _flops(node: fx.Node) -> int:
    """Count the operations of a node, without computing values."""
    target: Any = node.target
    if target is lstm_cells:  # they come with the states
        return 0
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda value: _empty(value.meta.get("val")))
    try:
        with torch.no_grad(), counted_flops() as counter:
            target(*args, **kwargs)
    except Exception:  # any exception: some operators cannot run without values; they do not multiply matrices
        return 0
    return counter.get_total_flops()


def _empty(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_empty, value))
    if not isinstance(value, Tensor):
        return value
    return torch.empty(tuple(map(int, value.shape)), dtype=value.dtype, device="meta")
