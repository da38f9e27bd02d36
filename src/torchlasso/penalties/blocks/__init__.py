"""Blocks: the magnitudes of a tensor that a penalty acts on.

A penalty is a scalar function of a magnitude r ≥ 0. The blocks say what the magnitudes are: the absolute values of
single weights, the Euclidean norms of rows, filters or heads, or singular values.
"""

from torchlasso._core.specs import import_modules
from torchlasso.penalties.blocks.base import Blocks, Rebuild, Strength, register, registry
from torchlasso.penalties.blocks.elements import Elements
from torchlasso.penalties.blocks.fan_in import FanIn
from torchlasso.penalties.blocks.n_of_m import NM
from torchlasso.penalties.blocks.nonnegative import NonNegative
from torchlasso.penalties.blocks.partitions import (
    Chunks,
    Columns,
    Filters,
    Heads,
    InputChannels,
    Partition,
    Rows,
)
from torchlasso.penalties.blocks.singular_values import SingularValues

__all__ = [
    "NM",
    "Blocks",
    "Chunks",
    "Columns",
    "Elements",
    "FanIn",
    "Filters",
    "Heads",
    "InputChannels",
    "NonNegative",
    "Partition",
    "Rebuild",
    "Rows",
    "SingularValues",
    "Strength",
    "register",
    "registry",
]

import_modules(__name__, __path__)  # a new kind of blocks is one file in this folder
