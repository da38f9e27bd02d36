"""Timings that are made up, since no test may depend on real ones, and zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

Functions = Mapping[str, Callable[[], Any]]


@pytest.fixture
def prefer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make some executions the quickest, in this order; the dense one comes next, and then all others.

    ``whole`` is the time of a run of the whole model, relative to the original.
    """

    def order(*names: str, whole: Callable[[], float] = lambda: 0.5) -> None:
        ranks = {name: [1.0 + rank] for rank, name in enumerate((*names, "dense"))}

        def layers(functions: Functions, seconds: float, device: torch.device) -> dict[str, list[float]]:
            for function in functions.values():
                function()
            return {name: ranks.get(name, [99.0]) for name in functions}

        def models(functions: Functions, seconds: float, device: torch.device) -> dict[str, list[float]]:
            return {name: [1.0 if name == "before" else whole()] for name in functions}

        monkeypatch.setattr("torchlasso.inference.choosing.interleaved", layers)
        monkeypatch.setattr("torchlasso.inference.whole.interleaved", models)

    return order


@pytest.fixture
def sparsified() -> Callable[..., nn.Module]:
    """Set a share of the weights of a model to zero, at random."""

    @torch.no_grad()
    def sparsify(model: nn.Module, share: float = 0.9) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) >= share)
        return model

    return sparsify
