"""Tables with many features for their rows: what a network sees of them, and that it does not learn noise by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchlasso.estimators import SparseClassifier, SparseRegressor, StabilitySelection
from torchlasso.estimators.convex import LinearProblem, Solution
from torchlasso.estimators.feature_groups import groups_of_features
from torchlasso.estimators.linear_path import LinearPath
from torchlasso.estimators.screening import promising_columns
from torchlasso.estimators.sensitivities import NetworkStack, SingleNetworks

NETWORK: dict[str, object] = {"hidden": (8,), "points": 1, "random_state": 0}


def table(n: int, p: int, true: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the first ones matter, as much as noise of a quarter of their variance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)).astype(np.float32)
    y = x[:, :true].sum(axis=1) + 0.5 * true**0.5 * rng.normal(size=n)
    return x, y / y.std()


def columns(x: np.ndarray, y: np.ndarray, most: int, groups: object = None, keep: tuple[int, ...] = ()) -> list[int]:
    """Return the columns that a network would see."""
    targets = SparseRegressor()._table(x, y).targets
    found = promising_columns(torch.from_numpy(x), targets, groups_of_features(groups, keep, x.shape[1], None), most)
    assert (np.diff(found) > 0).all()
    return found.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_features_are_seen_that_shift_the_target_or_whose_ends_both_do(scale: float) -> None:
    x, _ = table(300, 400, 1)
    x[:, 5] = (x[:, 5] > 1.5).astype(np.float32)
    x[:, 6] = 3.3
    y = x[:, 0] + np.abs(x[:, 1]) + 3 * x[:, 5] + 0.5 * x[:, 7]
    found = columns(scale * x + 5 * scale, y, 20)
    assert {0, 1, 5} <= set(found)
    assert 6 not in found
    assert len(found) == 20


def test_a_feature_is_seen_that_says_something_only_beside_another() -> None:
    x, _ = table(300, 400, 1)
    x[:, 1] += x[:, 0]
    y = 3 * x[:, 0] - 1.5 * x[:, 1]
    assert abs(np.corrcoef(x[:, 1], y)[0, 1]) < 0.1
    assert {0, 1} <= set(columns(x, y, 20))


def test_groups_are_seen_whole_and_kept_features_always() -> None:
    x, y = table(100, 300, 3)
    groups = {"first": [0, 200, 201], "other": [50, 51]}
    found = columns(x, y, 40, groups, keep=(77,))
    assert {0, 1, 2, 200, 201, 77} <= set(found)
    assert (50 in found) == (51 in found)
    assert len(found) in (39, 40)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_network_finds_the_features_that_matter_among_many_more_than_rows(early_stopping: bool) -> None:
    x, y = table(200, 2000, 5)
    model = SparseRegressor(features=5, epochs=60, early_stopping=early_stopping, **NETWORK).fit(x, y)
    assert model.support_.nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert (model.feature_importances_ > 0).sum() == 5
    other = x.copy()
    other[:, 5:] = np.random.default_rng(1).normal(size=(200, 1995))
    np.testing.assert_array_equal(model.predict(other), model.predict(x))
    at = SparseClassifier(0.1, epochs=20, early_stopping=early_stopping, **NETWORK).fit(x, y > 0)
    assert at.support_.shape == (2000,)
    assert 0 < at.support_.sum() <= 200


@pytest.mark.slow
def test_more_features_than_rows_can_be_asked_for() -> None:
    x, y = table(40, 200, 3)
    options: dict[str, object] = {**NETWORK, "epochs": 50, "batch_size": 10}
    assert SparseRegressor(features=70, **options).fit(x, y).support_.sum() == 70
    pairs = [[2 * i, 2 * i + 1] for i in range(100)]
    model = SparseRegressor(features=60, feature_groups=pairs, **options).fit(x, y)
    assert model.support_.reshape(-1, 2).any(axis=1).sum() == 60


def test_another_network_sees_all_features() -> None:
    seen: list[int] = []

    def linear(features: int, outputs: int) -> torch.nn.Module:
        seen.append(features)
        return torch.nn.Linear(features, outputs)

    x, y = table(30, 100, 3)
    SparseRegressor(0.1, module=linear, epochs=2, points=1).fit(x, y)
    assert seen == [100]


@pytest.mark.parametrize("penalty", ["mcp", "scad"])
def test_a_penalty_that_is_not_convex_keeps_no_features_that_learned_noise_by_heart(penalty: str) -> None:
    x, y = table(200, 300, 8)
    found = SparseRegressor(features=8, penalty=penalty, **NETWORK).fit(x, y).support_
    assert found[:8].sum() >= 7


def test_networks_that_are_trained_as_one_see_the_same_features_as_one_by_one() -> None:
    x, y = table(80, 200, 3)
    base = SparseRegressor(0.05, penalty="l1", epochs=10, batch_size=1000, **NETWORK)
    whole = base._table(x, y)
    tables, seeds = [whole.some(np.arange(40)), whole.some(np.arange(40, 80))], [1, 2]
    together = NetworkStack(base, 0.05)(tables, seeds)
    single = SingleNetworks(base, groups_of_features(None, (), 200, None), 0.05)(tables, seeds)
    assert ((together > 0).sum(axis=1) <= 40).all()
    np.testing.assert_allclose(together, single, atol=1e-5)


@pytest.mark.slow
def test_stability_selection_of_networks_ends_soon_and_finds_the_features() -> None:
    x, y = table(200, 1000, 4)
    selector = StabilitySelection(pairs=20, random_state=0).fit(x, y)
    assert selector.get_support(indices=True).tolist() == [0, 1, 2, 3]


def test_constant_features_cannot_be_asked_for() -> None:
    x, y = table(40, 10, 3)
    x[:, 4:] = 3.3
    with pytest.raises(ValueError, match=r"^features must be at most the number of those that vary, 4; got 5$"):
        SparseRegressor(features=5, epochs=2, **NETWORK).fit(x, y)
    with pytest.raises(ValueError, match=r"^features must be at most the number of those that vary, 4; got 5$"):
        SparseRegressor(features=5, hidden=()).fit(x, y)


def test_the_search_for_a_number_of_features_solves_the_whole_table_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 2000))
    y = x[:, :8].sum(axis=1) + 2 * rng.normal(size=200) > 0
    solved, solution = [], LinearPath.solution

    def counted(path: LinearPath, lam: float, start: Solution | None = None) -> Solution:
        solved.append(lam)
        return solution(path, lam, start)

    monkeypatch.setattr(LinearPath, "solution", counted)
    found = SparseClassifier(features=8, hidden=(), points=1).fit(x, y)
    assert len(solved) == 2
    monkeypatch.setattr(LinearProblem, "near", lambda *given: None)  # every λ is solved with the whole table
    plain = SparseClassifier(features=8, hidden=(), points=1).fit(x, y)
    assert len(solved) > 2 + 4
    assert found.lam_ == plain.lam_
    np.testing.assert_array_equal(found.support_, plain.support_)
