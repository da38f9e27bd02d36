"""Standardizing images and tables."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from torchlasso.data import Standardizer
from torchlasso.runs.records import parse_record


@pytest.mark.parametrize("shape", [(50, 4), (50, 3, 5, 6), (9000, 2)])
def test_mean_0_and_deviation_1_per_channel(shape) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 100
    scale = Standardizer.fit(x)
    dims = [0, *range(2, x.dim())]
    std, mean = torch.std_mean(x.double(), dims, correction=0)
    torch.testing.assert_close(torch.tensor(scale.mean, dtype=torch.float64), mean)
    torch.testing.assert_close(torch.tensor(scale.std, dtype=torch.float64), std)
    z = scale(x)
    assert z.dtype == x.dtype
    assert z.shape == x.shape
    torch.testing.assert_close(z.mean(dims), torch.zeros(shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(dims, correction=0), torch.ones(shape[1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1])
def test_constant_feature_gets_deviation_1(constant) -> None:
    scale = Standardizer.fit(torch.full((1797, 2), constant))
    assert scale.std == (1.0, 1.0)


def test_large_values_do_not_overflow() -> None:
    x = torch.tensor([[1e30], [-1e30]])
    assert Standardizer.fit(x)(x).flatten().tolist() == pytest.approx([1, -1])


def test_through_json() -> None:
    scale = Standardizer.fit(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    assert parse_record(Standardizer, json.loads(json.dumps(asdict(scale))), "config.json") == scale


def test_errors() -> None:
    scale = Standardizer((0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"x must have the shape \(n, 2, ...\), got \(4, 3\)"):
        scale(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="x must have the shape"):
        Standardizer.fit(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="one length, got 1 and 2"):
        Standardizer((0.0,), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"std must be above 0, got 0\.0"):
        Standardizer((0.0,), (0.0,))
    with pytest.raises(ValueError, match=r"config\.json is damaged: 'std' is missing"):
        parse_record(Standardizer, {"mean": [0.0]}, "config.json")
