"""The multiple of each family's number of units that runs fastest on this machine."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from torchlasso._core.timing import clock, interleaved
from torchlasso.compaction.plan import plan_removal
from torchlasso.compaction.removal import Removal
from torchlasso.distributed import processes
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Axis, axes_of
from torchlasso.graph.operators import Shaped, rule_of
from torchlasso.graph.rules.contractions import Affine

VECTORS = (8, 16, 32)  # numbers of units that fill the registers of processors
WORTH = 0.93  # the largest share of the time at which units without effect stay
SECONDS = 0.3  # for the measurement of a family

_chosen: dict[str, int] = {}  # by the operators and their sizes, for this process


def measured_multiples(units: UnitMap) -> dict[Axis, int]:
    """Measure for each family if its operators run faster with a few units without effect, which fill a vector.

    Each operator with an input and a weight that has units of the family runs on ones, with the sizes of the
    example inputs and of the removal: with all units removed that can be, and with as many kept as make a multiple of
    8, 16 or 32. Equal operators are measured once in a process. Of several processes, the first one decides.

    Returns:
        The multiple for the axis of each family that loses units; 1 where the exact number is as fast.
    """
    removal = plan_removal(units)
    losing = [axis for axis, gone in removal.gone.items() if gone.any()]
    found = torch.tensor([_multiple(units, removal, axis) for axis in losing], dtype=torch.long)
    processes.take_from_first_([found])
    return dict(zip(losing, found.tolist(), strict=True))


def _multiple(units: UnitMap, removal: Removal, axis: Axis) -> int:
    kept = int((~removal.gone[axis]).sum())
    sizes = {min(axis.size, -(-kept // vector) * vector): vector for vector in reversed(VECTORS)} | {kept: 1}
    nodes = [node for node in units.structure.trace.nodes if _is_product(node) and axis in _axes(units, node)]
    if len(sizes) == 1 or not nodes:
        return 1
    calls = {size: [_call(units, node, _with_units(removal, axis, size)) for node in nodes] for size in sizes}
    key = f"{torch.get_num_threads()} {[[_outline(call) for call in calls[size]] for size in sizes]}"
    if key not in _chosen:
        _chosen[key] = sizes[_fastest(calls, kept)]
    return _chosen[key]


def _fastest(calls: dict[int, list[Any]], exact: int) -> int:
    """Return the size at which operators are fastest, if by more than noise; else the exact one."""

    def run(size: int) -> None:
        for target, args, kwargs in calls[size]:
            target(*args, **kwargs)

    device = next(x.device for _, args, _ in calls[exact] for x in args if isinstance(x, Tensor))
    with torch.inference_mode():
        try:
            times = interleaved({str(size): partial(run, size) for size in calls}, SECONDS, clock(device))
        except RuntimeError:  # such as a convolution of groups, whose number would become smaller with its channels
            return exact
    seconds = {size: statistics.median(times[str(size)]) for size in calls}
    best = min(calls, key=seconds.__getitem__)
    return best if seconds[best] <= WORTH * seconds[exact] else exact


def _is_product(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(rule_of(node.target), Affine)


def _axes(units: UnitMap, node: fx.Node) -> set[Axis]:
    shapes = (units.structure.shapes.get(value) for value in (node, *node.all_input_nodes))
    return {axis for shape in shapes if isinstance(shape, Shaped) for dim in shape.dims for axis in axes_of(dim)}


def _with_units(removal: Removal, axis: Axis, size: int) -> Removal:
    """Return the removal with this number of the axis's units left."""
    gone = torch.arange(axis.size) >= size
    return Removal({**removal.gone, axis: gone})


def _call(units: UnitMap, node: fx.Node, removal: Removal) -> Any:
    """Return an operator with arguments of ones of the sizes after a removal."""
    trace = units.structure.trace
    parameters = [trace.tensors[x] for x in node.all_input_nodes if x in trace.names]
    like = parameters[0] if parameters else torch.empty(0)  # the other values are in the precision of comparisons

    def value(x: fx.Node) -> Any:
        shape, known = units.structure.shapes.get(x), x.meta.get("val")
        if not isinstance(shape, Shaped) or not isinstance(known, Tensor):
            return known
        return like.new_ones([removal.size(dim) for dim in shape.dims])

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
    return node.target, args, kwargs


def _outline(call: Any) -> str:
    """Return the operator of a call, and its arguments with shapes in place of tensors."""
    target, args, kwargs = call
    parts = [f"{tuple(x.shape)} {x.dtype} {x.device}" if isinstance(x, Tensor) else repr(x) for x in args]
    return f"{target} {parts} {sorted(kwargs)}"
