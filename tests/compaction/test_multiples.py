"""Units that stay where their layers run faster with them, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.compaction import multiples

KEPT = 19  # of 40 units


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], list[list[int]]]:
    """Set the seconds of sizes, 1 for all others; return the sizes of each measurement."""
    measured: list[list[int]] = []

    def arm(seconds: dict[int, float]) -> list[list[int]]:
        def interleaved(functions, *_):
            for function in functions.values():
                function()  # it runs
            measured.append(sorted(map(int, functions)))
            return {name: [seconds.get(int(name), 1.0)] for name in functions}

        monkeypatch.setattr(multiples, "interleaved", interleaved)
        return measured

    monkeypatch.setattr(multiples, "_chosen", {})
    return arm


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
    with torch.no_grad():
        model[0].weight[KEPT:] = 0
        model[0].bias[KEPT:] = 0.5  # a constant, which goes to the next bias
    return model


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        ({24: 0.5}, 24),
        ({24: 0.9, 32: 0.5}, 32),
        ({24: 0.95}, KEPT),  # within the noise
        ({24: 2.0, 32: 2.0}, KEPT),
        ({40: 0.1}, KEPT),  # not a size that is measured
    ],
)
def test_units_stay_where_that_is_faster(timed: Callable, seconds: dict[int, float], left: int) -> None:
    measured, model, x = timed(seconds), net(), torch.randn(7, 6)
    small, report = tl.compact(model, x, multiple_of="auto", return_report=True)
    assert measured == [[KEPT, 24, 32]]
    assert small[0].out_features == left == small[2].in_features
    assert torch.allclose(small(x), model(x), atol=1e-6)
    assert ("make a multiple of" in str(report)) == (left != KEPT)


def test_equal_layers_are_measured_once(timed: Callable) -> None:
    measured, x = timed({24: 0.5}), torch.randn(7, 6)
    for seed in range(3):
        assert tl.compact(net(seed), x, multiple_of="auto")[0].out_features == 24
    assert len(measured) == 1
    tl.compact(net(), torch.randn(8, 6), multiple_of="auto")  # more rows
    assert len(measured) == 2


def test_a_model_in_training_keeps_them_as_well(timed: Callable) -> None:
    timed({24: 0.5})
    model, x = net(), torch.randn(7, 6)
    before = model(x).detach()
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(), lam=0.1), lr=0.1)
    tl.shrink_(model, optimizer, x, multiple_of="auto")
    assert model[0].weight.shape == (24, 6)
    assert torch.allclose(model(x), before, atol=1e-6)


class Depthwise(nn.Module):
    """A convolution of groups between two others, and a head that adds over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 40, 1)
        self.each = nn.Conv2d(40, 40, 3, groups=40)
        self.head = nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.each(self.up(x).relu()).relu().mean((2, 3)))


def test_what_cannot_be_measured_is_exact(timed: Callable) -> None:
    measured, model, x = timed({24: 0.5}), Depthwise(), torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        for layer in (model.up, model.each):
            layer.weight[KEPT:] = 0
            layer.bias[KEPT:] = 0
    small = tl.compact(model, x, multiple_of="auto")
    assert not measured  # its number of groups would change with its channels
    assert small.each.out_channels == KEPT
    assert torch.allclose(small(x), model(x), atol=1e-6)


def test_the_clock_of_this_machine_changes_no_output() -> None:
    model, x = net(), torch.randn(64, 6)
    small = tl.compact(model, x, multiple_of="auto")
    assert small[0].out_features in (KEPT, 24, 32)
    assert torch.allclose(small(x), model(x), atol=1e-6)
    unknown: Any = "all"
    with pytest.raises(ValueError, match="multiple_of must be a whole number of at least 1; got 'all'"):
        tl.compact(model, x, multiple_of=unknown)
