"""Data that a function returns."""

from __future__ import annotations

import pytest
import torch

from torchlasso.data import load, load_part

MODULE = """
import numpy as np, torch
def split():
    test = torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([True, False])
    return (np.zeros((4, 3)), [0, 1, 0, 1]), test
def whole():
    return torch.arange(20.0).view(10, 2), torch.arange(20.0).view(10, 2) / 2
def wrong():
    return [1, 2, 3]
def ragged():
    return [[1], [2, 3]], [0, 1]
def scalar():
    return 3, 4
def short():
    return np.zeros((3, 2)), [0, 1]
def needy(n):
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    name = f"data_functions_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_function(module) -> None:
    dataset = load(f"{module}:split")
    assert dataset.classes == ("0", "1")
    assert dataset.test_y.tolist() == [1, 0]
    assert dataset.test_x.tolist() == [[1, 1, 1]] * 2
    regression = load(f"{module}:whole")
    assert regression.outputs == 2
    assert regression.y.shape == (8, 2)
    assert torch.equal(regression.x, regression.y * 2)
    assert len(load_part(f"{module}:whole").x) == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", r"must return \(x, y\), .*, not list"),
        ("ragged", "x has rows of different lengths"),
        ("scalar", "x must be an array or a tensor, not int"),
        ("short", "x has 3 rows and y has 2"),
        ("needy", "must need no arguments"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_function_errors(module, function, message) -> None:
    with pytest.raises(ValueError, match=f"{module}:{function}.*{message}"):
        load(f"{module}:{function}")
