"""A model that a compacted one does not fit into is refused, and stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.compacted import (
    ROWS,
    check_same,
    compacted,
    layers,
    numbers,
    shapes,
)
from torchlasso.compaction.resizing import NOTE


def test_a_model_between_forward_and_backward_is_refused(small: nn.Module, path: Path):
    tl.save(small, path)
    model = layers()
    before, loss = copy.deepcopy(model), model(ROWS).sum()
    with pytest.raises(ValueError, match=r"another object holds '[02]\.weight', so it cannot become smaller"):
        tl.load(path, into=model)
    check_same(model, before.eval(), ROWS)
    loss.backward()
    tl.load(path, into=model)
    check_same(model, small, ROWS)


def test_a_model_that_is_held_is_refused(small: nn.Module, path: Path):
    import weakref

    tl.save(small, path)
    model = layers()
    before, held = copy.deepcopy(model), weakref.ref(model[2].weight)
    with pytest.raises(ValueError, match=r"another object holds '2\.weight', so it cannot become smaller"):
        tl.load(path, into=model)
    assert held() is model[2].weight
    check_same(model, before.eval(), ROWS)


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2))


MISFITS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "wider": (
        wide,
        r"'0\.weight' is float32 of shape \(4, 6\), originally \(8, 6\), and float32 of shape \(10, 6\)",
    ),
    "narrower": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2)),
        r"'0\.weight' is float32 of shape \(4, 6\), originally \(8, 6\), and float32 of shape \(3, 6\) in the model",
    ),
    "other outputs": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        r"'2\.weight' is float32 of shape \(2, 4\), originally \(2, 8\), and float32 of shape \(3, 8\) in .*'2\.bias'",
    ),
    "more": (lambda: nn.Sequential(*layers(), nn.Linear(2, 2)), r"it lacks '3\.weight', '3\.bias'"),
    "fewer": (lambda: layers()[:2], r"the model lacks '2\.bias', '2\.weight'"),
    "another rank": (
        lambda: nn.Sequential(nn.Conv1d(6, 8, 1), nn.ReLU(), nn.Linear(8, 2)),
        r"'0\.weight' is float32 of shape \(4, 6\), originally \(8, 6\), and float32 of shape \(8, 6, 1\) in the model",
    ),
    "another dtype": (
        lambda: layers().double(),
        r"'0\.weight' is float32 of shape \(4, 6\), originally \(8, 6\), and float64",
    ),
    "other numbers": (lambda: numbered(out_features=9), r"'0\.out_features' was 8; the model has 9"),
    "no numbers": (lambda: numbered(out_features=None), r"'0\.out_features' was 8; the model has no such number"),
}


def numbered(out_features: int | None) -> nn.Module:
    model = layers()
    model[0].out_features = out_features
    return model


@pytest.mark.parametrize(("build", "message"), MISFITS.values(), ids=MISFITS)
def test_another_model_is_refused_and_nothing_changes(
    small: nn.Module, path: Path, build: Callable[[], nn.Module], message: str
):
    tl.save(small, path)
    model = build()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message) as caught:
        tl.load(path, into=model)
    assert "\n" not in str(caught.value)
    assert shapes(model) == shapes(before)
    assert numbers(model) == numbers(before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_a_model_whose_own_code_fails_is_unchanged(small: nn.Module, path: Path):
    def fail(*_: Any) -> None:
        raise RuntimeError("not today")

    tl.save(small, path)
    model = layers()
    model.register_load_state_dict_post_hook(fail)
    with pytest.raises(RuntimeError, match="not today"):
        tl.load(path, into=model)
    assert str(model) == str(layers())
    assert shapes(model) == shapes(layers())
    assert NOTE not in vars(model[0])


def test_numbers_that_say_something_else_are_not_ignored(path: Path):
    """Two heads of three, or one of six: the same shapes, another function."""
    _, small = compacted("heads in a number")
    tl.save(small, path)
    other = copy.deepcopy(small)
    for module in other.modules():
        vars(module).pop(NOTE, None)
    tl.load(path, into=other)
    other[0].number = 1
    with pytest.raises(ValueError, match=r"'0\.number' was 4; the model has 1"):
        tl.load(path, into=other)
