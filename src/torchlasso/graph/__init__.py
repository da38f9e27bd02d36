"""Units: slices of tensors that live and die together, read from the operators that a model runs."""

from torchlasso.graph.flow import Flow
from torchlasso.graph.input_blocks import Inputs
from torchlasso.graph.reading import inputs_read, read_in, strengths_in
from torchlasso.graph.unit_blocks import Units
from torchlasso.graph.units import Family, UnitMap, find_units

__all__ = ["Family", "Flow", "Inputs", "UnitMap", "Units", "find_units", "inputs_read", "read_in", "strengths_in"]
