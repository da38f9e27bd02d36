"""Penalties: regularizers with their value, prox, distance from stationarity and largest useful strength."""

from torchlasso._core.specs import import_modules
from torchlasso.penalties.base import Penalty, Separable, check_strength, register, registry
from torchlasso.penalties.separable import L1, MCP, SCAD, ElasticNet, LHalf, LogSum
from torchlasso.penalties.sparse_group import SparseGroup

__all__ = [
    "L1",
    "MCP",
    "SCAD",
    "ElasticNet",
    "LHalf",
    "LogSum",
    "Penalty",
    "Separable",
    "SparseGroup",
    "check_strength",
    "register",
    "registry",
]

import_modules(__name__, __path__)  # a new penalty is one file in this folder
