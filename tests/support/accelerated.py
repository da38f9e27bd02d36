"""The outputs and the reports of accelerated models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchlasso.inference import AccelerationReport


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Any) -> list[Tensor]:
    found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def assert_same(model: nn.Module, fast: nn.Module, inputs: Any) -> None:
    for ours, wanted in zip(outputs_of(fast, inputs), outputs_of(model.eval(), inputs), strict=True):
        tolerance = 1e-9 if wanted.dtype == torch.float64 else 1e-4
        torch.testing.assert_close(ours, wanted, atol=tolerance, rtol=tolerance)


class Branching(nn.Module):
    """A model that cannot be exported, since its inputs decide what it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def dense(report: AccelerationReport) -> dict[str, str]:
    return {layer.name: layer.why for layer in report.layers if layer.execution == "dense"}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5))
