"""The units of a model: what lives and dies together, over all its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchlasso.graph.axes import Axis, Dim, axes_of, pin, repeated, units_in
from torchlasso.graph.flow import Flow, flow
from torchlasso.graph.operators import Shaped
from torchlasso.graph.structure import Structure, structure
from torchlasso.graph.tracing import Inputs


@dataclass(frozen=True)
class Family:
    """Units of one kind, such as the channels of a layer and of all that is added to it.

    Attributes:
        name: of the first parameter that they have slices in, and the dimension there.
        size: how many there are.
        places: the parameters and buffers that they have slices in, and the dimensions.
        pins: why none of them can go; empty where any can.
    """

    name: str
    size: int
    places: tuple[tuple[str, int], ...]
    pins: tuple[str, ...]
    axis: Axis


@dataclass(frozen=True)
class UnitMap:
    """The families of a model's units."""

    structure: Structure
    families: tuple[Family, ...]

    def slices(self, family: Family, unit: int) -> list[tuple[str, int, Tensor]]:
        """The slices of a unit: parameters, dimensions, and the indices there."""
        dims = self.structure.parameters
        found = ((name, k, units_in(dims[name][k], family.axis)) for name, k in family.places)
        return [(name, k, (units == unit).nonzero().flatten()) for name, k, units in found]

    @property
    def removable(self) -> tuple[Family, ...]:
        """Those of which any unit can go."""
        return tuple(family for family in self.families if not family.pins)

    def idle(self) -> dict[str, Tensor]:
        """Which units could go now: no value of theirs both depends on the inputs and matters to the outputs.

        Returns:
            For each removable family, by its name, a mask of its units.
        """
        flows = flow(self.structure.trace)
        needed = {family.axis: torch.zeros(family.size, dtype=torch.bool) for family in self.removable}
        for node, shape in self.structure.shapes.items():
            if node in flows and isinstance(shape, Shaped):
                _need(needed, shape.dims, flows[node])
        return {family.name: ~needed[family.axis] for family in self.removable}


def find_units(model: nn.Module, example_inputs: Inputs) -> UnitMap:
    """Read a model's units from the operators that it runs.

    Args:
        model: any that ``torch.export`` can export; it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Raises:
        ValueError: the model cannot be exported.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> (channels,) = find_units(net, torch.randn(1, 1, 4, 4)).removable
        >>> channels.size
        4
        >>> [f"{name} {k}" for name, k in channels.places]
        ['0.weight 0', '0.bias 0', '1.weight 0', '1.bias 0', '4.weight 1', '1.running_mean 0', '1.running_var 0']
    """
    found = structure(model, example_inputs)
    for shape in found.shapes.values():
        for dim in shape.dims if isinstance(shape, Shaped) else ():
            for axis in repeated(dim):
                pin(axis, "it is combined with itself")
    places: dict[Axis, list[tuple[str, int]]] = {}
    for name, dims in found.parameters.items():
        for k, dim in enumerate(dims):
            for axis in dict.fromkeys(axes_of(dim)):
                places.setdefault(axis, []).append((name, k))
    families = (
        Family(f"{where[0][0]}:{where[0][1]}", axis.size, tuple(where), tuple(axis.pins), axis)
        for axis, where in places.items()
    )
    return UnitMap(found, tuple(families))


def _need(needed: dict[Axis, Tensor], dims: Sequence[Dim], known: Flow) -> None:
    """Note the units of which a value that matters depends on the inputs."""
    active = known.depends & known.matters
    for place, dim in enumerate(dims):
        others = [k for k in range(active.dim()) if k != place]
        here = active.amax(others) if others else active
        for axis in dict.fromkeys(axes_of(dim)):
            if axis in needed:
                units = units_in(dim, axis)
                needed[axis][units[here & (units >= 0)]] = True
