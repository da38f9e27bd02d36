"""The slices of a unit, for tests that zero units by hand."""

from torch import Tensor

from torchlasso.graph import Family, UnitMap
from torchlasso.graph.axes import units_in


def slices_of(units: UnitMap, family: Family, unit: int) -> list[tuple[str, int, Tensor]]:
    """Return the slices of a unit: parameters and buffers, dimensions, and the indices there."""
    found = ((name, k, units_in(units.structure.parameters[name][k], family.axis)) for name, k in family.places)
    return [(name, k, (numbers == unit).nonzero().flatten()) for name, k, numbers in found]
