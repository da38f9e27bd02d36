"""torchlasso: L1 regularization for PyTorch, done right."""

import torchlasso.startup  # noqa: F401  (before all else, for Ctrl-C)

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchlasso import figures
    from torchlasso.activations import ActivationL1, Activity
    from torchlasso.compaction import CompactionReport, compact, shrink_
    from torchlasso.control import (
        Hold,
        LambdaController,
        Reweighted,
        TargetBudget,
        TargetCount,
        TargetL0,
        TargetMissed,
        TargetSparsity,
        Warmup,
    )
    from torchlasso.diagnostics.record import LayerReport, SparsityReport
    from torchlasso.diagnostics.report import report
    from torchlasso.diagnostics.stationarity import Stationarity, lambda_max, stationarity
    from torchlasso.graph import Inputs, Units
    from torchlasso.inference import AccelerationReport, accelerate
    from torchlasso.optim import ProxAdam, ProxAdamW, Proximal, ProxSGD, proximal
    from torchlasso.penalties import L1, MCP, SCAD, ElasticNet, LHalf, LogSum, Penalty, Separable, SparseGroup
    from torchlasso.penalties.attention import attention_heads
    from torchlasso.penalties.blocks import (
        NM,
        Blocks,
        Chunks,
        Columns,
        Elements,
        FanIn,
        Filters,
        Heads,
        InputChannels,
        NonNegative,
        Rows,
        SingularValues,
    )
    from torchlasso.penalties.lora import lora_ranks
    from torchlasso.selection import Rule, param_groups, penalty
    from torchlasso.storage import load, save

__version__ = "0.1.0"

__all__ = [
    "L1",
    "MCP",
    "NM",
    "SCAD",
    "AccelerationReport",
    "ActivationL1",
    "Activity",
    "Blocks",
    "Chunks",
    "Columns",
    "CompactionReport",
    "ElasticNet",
    "Elements",
    "FanIn",
    "Filters",
    "Heads",
    "Hold",
    "InputChannels",
    "Inputs",
    "LHalf",
    "LambdaController",
    "LayerReport",
    "LogSum",
    "NonNegative",
    "Penalty",
    "ProxAdam",
    "ProxAdamW",
    "ProxSGD",
    "Proximal",
    "Reweighted",
    "Rows",
    "Rule",
    "Separable",
    "SingularValues",
    "SparseGroup",
    "SparsityReport",
    "Stationarity",
    "TargetBudget",
    "TargetCount",
    "TargetL0",
    "TargetMissed",
    "TargetSparsity",
    "Units",
    "Warmup",
    "accelerate",
    "attention_heads",
    "compact",
    "figures",
    "lambda_max",
    "load",
    "lora_ranks",
    "param_groups",
    "penalty",
    "proximal",
    "report",
    "save",
    "shrink_",
    "stationarity",
]

# Where the names above are looked for, in this order. They are imported when they are asked for, so that a command can
# explain itself without importing torch, and imports no more than it needs.
_HOMES = (
    "penalties",
    "penalties.blocks",
    "penalties.attention",
    "penalties.lora",
    "selection",
    "activations",
    "optim",
    "graph",
    "control",
    "diagnostics.record",
    "diagnostics.report",
    "diagnostics.stationarity",
    "compaction",
    "inference",
    "storage",
)
_PACKAGES = ("data", "distributed", "estimators", "export", "figures", "integrations", "models", "path", "training")


def __getattr__(name: str) -> Any:
    found: Any = None
    if name in _PACKAGES or name in _HOMES:
        found = import_module(f"{__name__}.{name}")
    elif name in __all__:
        homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
        found = next(getattr(home, name) for home in homes if hasattr(home, name))
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
