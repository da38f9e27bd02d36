"""Small models with zeros, and a compaction whose outputs are compared with those of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso.compaction import CompactionReport, compact

TOLERANCE = 1e-10  # of numbers in float64, relative to the largest


def images(size: int = 6, channels: int = 3) -> Tensor:
    return torch.randn(3, channels, size, size, dtype=torch.float64)


def rows(columns: int) -> Tensor:
    return torch.randn(5, columns, dtype=torch.float64)


def ready(model: nn.Module) -> nn.Module:
    """Convert a model to float64 with random values, including shifts and statistics."""
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2) if "running_var" in name else tensor.normal_()
    return model


def compacted(model: nn.Module, x: Any, modes: tuple[bool, ...] = (False, True), **options: Any):
    """Return a smaller model, after a comparison of its outputs, and the report."""
    small, found = compact(model, x, return_report=True, **options)
    for training in modes:
        ours, theirs = (copy.deepcopy(each).train(training)(x) for each in (small, model))
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    return small, found


def why(found: CompactionReport, size: int) -> str:
    """Return the reasons of the only family that had this number of units."""
    (family,) = [family for family in found.families if family.before == size]
    return "; ".join(family.why)


def zero(tensor: Tensor, *where: int, dim: int = 0) -> None:
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(where), 0.0)


class Function(nn.Module):
    """A function of some layers and an input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)
