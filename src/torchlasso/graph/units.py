"""The units of a model: slices of its tensors that live and die together."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from torchlasso._core.running import ExampleInputs, run_once
from torchlasso.graph.axes import Axis, Dim, axes_of, count_of, pin, repeated, units_in
from torchlasso.graph.flow import Flow, flow, unexpanded
from torchlasso.graph.operators import Shaped, all_dims, rule_of
from torchlasso.graph.other_sizes import at_other_sizes
from torchlasso.graph.structure import Structure, structure
from torchlasso.graph.tracing import Trace

UNREAD = "nothing reads it on these inputs"
AS_LARGE = "it stays as large as another part of a split or recurrent layer, which cannot become smaller"


@dataclass(frozen=True)
class Family:
    """A family of units, such as the channels of a layer and of every layer that is added to it.

    Attributes:
        name: the name of the first parameter that they have slices in, and the dimension. If several families share it,
            such as heads and the dimensions of a head, they are numbered.
        size: the number of units.
        places: the parameters and buffers that they have slices in, and the dimensions.
        pins: the reasons why none of them can be removed; empty if any of them can.
        axis: the axis whose indices are the units.
    """

    name: str
    size: int
    places: tuple[tuple[str, int], ...]
    pins: tuple[str, ...]
    axis: Axis


@dataclass(frozen=True)
class UnitMap:
    """The families of a model's units.

    Attributes:
        structure: the operators and dimensions from which the units were read.
        families: all families.
        at_other_sizes: a function that returns the units for inputs of other sizes, or None if the model accepts no
            other sizes. It raises ``ValueError`` if the model cannot be exported for them.
    """

    structure: Structure
    families: tuple[Family, ...]
    at_other_sizes: Callable[[], UnitMap | None]

    @property
    def removable(self) -> tuple[Family, ...]:
        """The families whose units can be removed."""
        return tuple(family for family in self.families if not family.pins)

    @cached_property
    def flows(self) -> dict[fx.Node, Flow]:
        """The elements of each value, for the weights of the model at the first access."""
        return flow(self.structure.trace)

    def nonzero(self, node: fx.Node, varying: bool = False) -> dict[Axis, Tensor]:
        """Return, for each removable axis of a value, the units with a fixed element other than zero.

        Args:
            node: the node of the value.
            varying: whether elements that depend on the inputs count as well.
        """
        if (node, varying) not in self._nonzero:
            known, shape = self.flows[node], self.structure.shapes.get(node)
            where = unexpanded(known.kept) != 0
            where = where | unexpanded(known.depends) if varying else where
            dims = shape.dims if isinstance(shape, Shaped) else []
            axes = dict.fromkeys(axis for dim in dims for axis in axes_of(dim) if axis in self._idle)
            found = {axis: torch.zeros(axis.size, dtype=torch.bool) for axis in axes}
            _note(found, dims, where)
            self._nonzero[node, varying] = found
        return self._nonzero[node, varying]

    @cached_property
    def _nonzero(self) -> dict[tuple[fx.Node, bool], dict[Axis, Tensor]]:
        return {}

    def now(self, model: nn.Module) -> UnitMap:
        """Return the same units for the present weights of the model."""
        kept = [*model.named_parameters(), *model.named_buffers()]
        return self._with({name: tensor.detach() for name, tensor in kept})

    def _with(self, weights: Mapping[str, Tensor]) -> UnitMap:
        """Return the same units for other weights."""
        trace = self.structure.trace
        tensors = {
            node: weights.get(trace.names[node], tensor) if node in trace.names else tensor
            for node, tensor in trace.tensors.items()
        }

        def others() -> UnitMap | None:
            units = self.at_other_sizes()
            return units and units._with(weights)

        structure = replace(self.structure, trace=replace(trace, tensors=tensors, outputs=None))
        return UnitMap(structure, self.families, functools.cache(others))

    def idle(self) -> dict[Axis, Tensor]:
        """Return the idle units: none of their elements both depends on the inputs and matters to the outputs.

        Returns:
            A mask of the units for the axis of each removable family.
        """
        return dict(self._idle)

    @cached_property
    def _idle(self) -> dict[Axis, Tensor]:
        needed = {family.axis: torch.zeros(family.size, dtype=torch.bool) for family in self.removable}
        for node, shape in self.structure.shapes.items():
            if node in self.flows and isinstance(shape, Shaped) and node not in self.structure.trace.names:
                known = self.flows[node]
                _note(needed, shape.dims, unexpanded(known.depends) & unexpanded(known.matters))
        return {axis: ~mask for axis, mask in needed.items()}


def find_units(model: nn.Module, example_inputs: ExampleInputs) -> UnitMap:
    """Find a model's units in the graph of the operators that it runs.

    Args:
        model: any model that ``torch.export`` can export; it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Raises:
        ValueError: the model cannot be exported.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> (channels,) = find_units(net, torch.randn(1, 1, 4, 4)).removable
        >>> channels.size
        4
        >>> [f"{name} {k}" for name, k in channels.places]
        ['0.weight 0', '0.bias 0', '1.weight 0', '1.bias 0', '4.weight 1', '1.running_mean 0', '1.running_var 0']
    """
    found = structure(model, example_inputs)
    every = [dim for shape in found.shapes.values() for dim in all_dims(shape)]
    for dim in every:
        for axis in repeated(dim):
            pin(axis, "it is combined with itself")
    for axis in {axis for dim in every for axis in axes_of(dim)}:
        if axis.size == 1:
            pin(axis, "there is only one")
    _pin_unread_parameters(found)
    _pin_together(dict.fromkeys(axis for dim in every for axis in axes_of(dim)))
    places: dict[Axis, list[tuple[str, int]]] = {}
    for name, dims in found.parameters.items():
        for k, dim in enumerate(dims):
            for axis in dict.fromkeys(axes_of(dim)):
                places.setdefault(axis, []).append((name, k))
    called: Counter[str] = Counter(_name(where) for where in places.values())
    numbers: Counter[str] = Counter()
    families = []
    for axis, where in places.items():
        name = _name(where)
        if called[name] > 1:  # such as heads, and the dimensions of a head
            numbers[name] += 1
            name = f"{name}.{numbers[name]}"
        families.append(Family(name, axis.size, tuple(where), tuple(axis.pins), axis))
    return UnitMap(found, tuple(families), functools.cache(lambda: _at_other_sizes(model, example_inputs, found.trace)))


def _at_other_sizes(model: nn.Module, example_inputs: ExampleInputs, trace: Trace) -> UnitMap | None:
    """Return the units for inputs of other sizes that the model accepts, with the weights that it had in a trace."""
    exact = trace.precision.copied(model)

    def run(inputs: ExampleInputs) -> None:
        run_once(exact, trace.precision.tensors(inputs), within=[trace.precision.running()])

    accepted = at_other_sizes(example_inputs, run)
    if accepted is None:
        return None
    weights = {name: trace.tensors[node] for node, name in trace.names.items()}
    return find_units(model, accepted[0])._with(weights)


def _name(places: Sequence[tuple[str, int]]) -> str:
    name, k = places[0]
    return f"{name}:{k}"


def _pin_unread_parameters(found: Structure) -> None:
    """Pin axes of parameters that no operator reads: with other inputs, such as longer ones, an operator may."""
    values = [node for node in found.shapes if node.op != "placeholder" or node not in found.trace.names]
    for node in list(values):
        rule = rule_of(node.target) if node.op == "call_function" else None
        if rule is not None and rule.adds_up:  # it reads an axis that is not in its result
            values += node.all_input_nodes
    read = {axis for node in values for dim in all_dims(found.shapes[node]) for axis in axes_of(dim)}
    for dims in found.parameters.values():
        for dim in dims:
            for axis in axes_of(dim):
                if axis not in read and not axis.pins:
                    pin(axis, UNREAD)


def _pin_together(axes: Iterable[Axis]) -> None:
    """Pin the axes that must keep as many indices as a pinned axis."""
    together: dict[Axis, list[Axis]] = {}
    for axis in axes:
        together.setdefault(count_of(axis), []).append(axis)
    for members in together.values():
        if any(axis.pins for axis in members):
            for axis in members:
                if not axis.pins:
                    pin(axis, AS_LARGE)


def _note(found: dict[Axis, Tensor], dims: Sequence[Dim], where: Tensor) -> None:
    """Add to the masks of axes the units that have an element where a mask is true.

    Args:
        found: the masks by axis; they are changed.
        dims: the dimensions of the value.
        where: the mask of its elements, with size 1 along dimensions in which all elements are equal.
    """
    for place, dim in enumerate(dims):
        axes = [axis for axis in dict.fromkeys(axes_of(dim)) if axis in found]
        if axes and where.numel():
            others = [k for k in range(where.dim()) if k != place]
            here = (where.amax(others) if others else where).expand(dim.size)
            for axis in axes:
                units = units_in(dim, axis)
                found[axis][units[here & (units >= 0)]] = True
