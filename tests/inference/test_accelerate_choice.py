"""The ways to run layers that are taken: right ones, as many as make the model faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.accelerated import assert_same, dense, mlp
from torchlasso.inference.linear import SparseLinear

pytestmark = pytest.mark.slow

Prefer = Callable[..., None]
Sparsified = Callable[..., nn.Module]


def test_a_way_that_is_wrong_is_not_taken(
    prefer: Prefer, sparsified: Sparsified, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer("csr", "channels")
    model, x = sparsified(mlp()), torch.randn(3, 20)
    product = SparseLinear.forward
    monkeypatch.setattr(SparseLinear, "forward", lambda self, input: product(self, input) + 1e-4)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert all("csr" not in layer.milliseconds for layer in report.layers)
    assert_same(model, fast, x)


def test_a_model_that_sees_the_difference_keeps_its_layers(prefer: Prefer, sparsified: Sparsified) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(20, 20), nn.Linear(20, 20)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) * (2 if isinstance(self.a, nn.Linear) else 1)

    prefer("csr")
    model, x = sparsified(Picky()), torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert list(dense(report)) == ["a"]
    assert "the outputs differ" in dense(report)["a"]
    assert isinstance(fast.b, SparseLinear)
    assert_same(model, fast, x)


@pytest.mark.parametrize(("times", "replaced"), [([0.9], 3), ([1.1, 0.9], 2), ([1.1, 1.1, 0.9], 1), ([1.1] * 3, 0)])
def test_a_model_that_is_slower_gets_fewer_of_them(
    times: list[float], replaced: int, prefer: Prefer, sparsified: Sparsified
) -> None:
    given = iter(times)
    prefer("csr", whole=lambda: next(given))
    model, x = sparsified(mlp()), torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert next(given, None) is None
    assert sum(isinstance(module, SparseLinear) for module in fast) == replaced
    assert list(dense(report).values()) == (3 - replaced) * ["the whole model is not faster with it"]
    assert report.speedup >= 1
    assert_same(model, fast, x)


def test_a_compacted_model_that_is_slower_is_not_taken(prefer: Prefer) -> None:
    model, x = mlp(), torch.randn(3, 20)
    nn.init.zeros_(model[2].weight[:7])
    for whole, width in ((1.1, 30), (0.9, 23)):
        prefer("dense", whole=lambda whole=whole: whole)
        fast, report = tl.accelerate(model, x, return_report=True)
        assert fast[2].out_features == width
        assert ("no unit was removed" in report.compaction) == (width == 30)
        assert set(dense(report)) == {"0", "2", "4"}
        assert_same(model, fast, x)


def test_real_timings_are_few(sparsified: Sparsified) -> None:
    """The choice is not known, but the outputs are right."""
    model, x = sparsified(mlp()), torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, seconds=1e-3, compact_first=False, return_report=True)
    assert report.before > 0
    assert all(set(layer.milliseconds) >= {"dense", "csr"} for layer in report.layers)
    assert_same(model, fast, x)
