"""The choice of networks that are first trained under L1, by rows that are held out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from torchlasso.estimators import SparseClassifier, SparseCox, SparseRegressor
from torchlasso.estimators.base import Table
from torchlasso.estimators.feature_groups import groups_of_features
from torchlasso.estimators.network_path import NetworkPath
from torchlasso.estimators.standardized import StandardizedPath


def noisy(n: int, p: int, true: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the first ones matter, and noise of a third of their variance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)).astype(np.float32)
    y = x[:, :true].sum(axis=1) + 0.6 * true**0.5 * rng.normal(size=n)
    return x, y / y.std()


@pytest.mark.slow
def test_the_default_keeps_no_features_that_learned_noise_by_heart_with_more_rows_than_features() -> None:
    x, y = noisy(200, 150, 10, seed=0)
    options: dict[str, Any] = {"features": 10, "epochs": 100, "batch_size": 100, "points": 1, "random_state": 0}
    found = SparseRegressor(**options).fit(x, y).support_[:10].sum()
    assert found == 10
    assert SparseRegressor(penalty="mcp", **options).fit(x, y).support_[:10].sum() < found


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    models: dict[bool, Any],
    shape: tuple[int, int] = (200, 5),
    live: tuple[list[int], list[int]] = ([0, 1], [0, 2]),
    **options: Any,
) -> tuple[bool, list[int]]:
    """Return whether networks start under L1, and the rows of each trial, for models that are given for both ways.

    ``live`` has the features of the model under MCP from the start, and of the other one.
    """
    rng = np.random.default_rng(0)
    x, sizes, groups = rng.normal(size=shape), list[int](), options.pop("groups", None)
    model = SparseClassifier(**{"features": 2, "random_state": 0, **options})

    def path(table: Table, groups: Any, seed: int, starts_convex: bool = False) -> Any:
        sizes.append(len(table.x))
        point = SimpleNamespace(live=np.isin(np.arange(shape[1]), live[starts_convex]))
        fitted = SimpleNamespace(model=SimpleNamespace(outputs=models[starts_convex]), point=point)
        return SimpleNamespace(with_features=lambda count, lam: fitted)

    monkeypatch.setattr(model, "_path", path)
    table = model._table(x, np.where(x[:, 0] > 0, "b", "a"), groups=groups)
    return model._finds_more_from_convex(table, groups_of_features(None, (), shape[1], None), seed=0), sizes


def right(share: float, sure: float) -> Any:
    """Return a model of two classes that is right for about a share of the rows, and so sure of all."""

    def outputs(x: np.ndarray) -> np.ndarray:
        is_right = np.random.default_rng(1).random(len(x)) < share
        return sure * np.where(is_right, np.sign(x[:, 0]), -np.sign(x[:, 0]))[:, None]

    return outputs


def test_the_better_features_are_taken_even_if_their_network_is_too_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, {False: right(0.95, 12.0), True: right(0.7, 1.0)}) == (False, [150, 150])
    assert chosen(monkeypatch, {False: right(0.7, 1.0), True: right(0.95, 12.0)}) == (True, [150, 150])
    assert chosen(monkeypatch, {False: right(0.9, 2.0), True: right(0.9, 2.0)})[0] is False


def test_the_same_features_and_fewer_than_asked_for_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {False: right(0.7, 1.0), True: right(0.95, 1.0)}
    for live, taken in ((([0, 1], [0, 2]), True), (([0, 1], [0, 1]), False), (([0, 1], [0]), False)):
        assert chosen(monkeypatch, models, live=live)[0] is taken


def test_there_is_no_trial_where_nothing_is_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {False: right(0.7, 1.0), True: right(0.95, 1.0)}
    for options in ({"penalty": "mcp"}, {"features": None}, {"hidden": ()}, {"features": 5}, {"shape": (12, 5)}):
        assert chosen(monkeypatch, both, **options) == (False, [])
    assert chosen(monkeypatch, both, groups=np.arange(200) // 20) == (False, [])  # ten people
    assert chosen(monkeypatch, both, shape=(60, 50)) == (True, [])  # 45 rows would be left


def test_the_rows_of_a_group_with_one_target_are_one_answer() -> None:
    model, x = SparseClassifier(), np.random.default_rng(0).normal(size=(60, 3))
    animals, classes = np.repeat(np.arange(12), 5), np.where(np.arange(60) % 10 < 5, "ill", "well")
    assert model._table(x, classes).answers == 60
    assert model._table(x, classes, groups=animals).answers == 12  # all rows of an animal are of one class
    assert model._table(x, np.arange(60) % 5, groups=animals).answers == 60
    numbers = SparseRegressor()._table(x, x[animals, :2], groups=animals)
    assert numbers.answers == 12
    times = np.stack([animals % 2, np.arange(60.0) % 5], axis=1)
    assert SparseCox()._table(x, times, groups=animals).answers == 60


@pytest.mark.parametrize("penalty", ["auto", "mcp"])
def test_networks_start_under_l1_with_more_features_than_answers(penalty: str) -> None:
    rng = np.random.default_rng(0)
    x, animals = rng.normal(size=(120, 30)), np.repeat(np.arange(24), 5)
    classes, groups = animals % 2, groups_of_features(None, (), 30, None)
    model = SparseClassifier(features=3, penalty=penalty)
    for given, starts in ((None, False), (animals, True), (np.arange(120) // 2, False)):
        path = model._path(model._table(x, classes, groups=given), groups, seed=0)
        assert isinstance(path, StandardizedPath)
        assert isinstance(path.path, NetworkPath)
        assert path.path._starts_convex is starts
    assert not model._finds_more_from_convex(model._table(x, classes, groups=animals), groups, seed=0)
