"""The choice of λ: by cross-validation, by pure noise, by a number of features, and the selector of a pipeline."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LassoCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from torchlasso.estimators import (
    FeatureSelector,
    SparseClassifier,
    SparseClassifierCV,
    SparseRegressor,
    SparseRegressorCV,
    StabilitySelection,
)

SHORT: dict[str, Any] = {"hidden": (8,), "epochs": 60, "points": 2, "random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        FeatureSelector(SparseClassifier(hidden=(), points=1, tol=1e-5), features="best", lams=[0.1, 0.3], cv=2),
        FeatureSelector(SparseRegressor(hidden=(), points=1), features=1),
        SparseClassifierCV(hidden=(), points=1, lams=[0.1, 0.3], cv=2, tol=1e-5),
        SparseRegressorCV(hidden=(), points=1, lams=[0.1, 0.3], cv=2, tol=1e-5),
    ],
    ids=["selector by cross-validation", "selector of one", "classifier", "regressor"],
)
@pytest.mark.filterwarnings("ignore")
def test_they_follow_the_conventions_of_scikit_learn(estimator: Any) -> None:
    results = check_estimator(estimator, on_fail=None)
    failed = [(each["check_name"], each["exception"]) for each in results if each["status"] == "failed"]
    assert failed == []
    assert len(results) > 50


def table(n: int = 100, p: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, x[:, 3] - 2 * x[:, 7] + rng.normal(size=n)


def test_cross_validation_chooses_what_scikit_learn_chooses() -> None:
    x, y = table()
    lams = np.geomspace(0.01, 2, 8)
    ours = SparseRegressorCV(hidden=(), lams=lams[::-1], cv=4, scoring="neg_mean_squared_error").fit(x, y)
    theirs = LassoCV(alphas=lams, cv=4, tol=1e-10, max_iter=100_000).fit(x, y)
    np.testing.assert_allclose(-ours.scores_, theirs.mse_path_[::-1], rtol=1e-6)
    np.testing.assert_allclose(ours.lam_, theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.features_.shape == ours.scores_.shape == (8, 4)


@pytest.mark.slow
def test_one_standard_error_is_sparser_and_hardly_worse() -> None:
    x, y = table()
    best, sparse = (SparseRegressorCV(hidden=(), rule=rule, lams=12, tol=1e-4).fit(x, y) for rule in ("best", "one-se"))
    assert sparse.support_.nonzero()[0].tolist() == [3, 7]
    assert best.support_.sum() > 2
    means = best.scores_.mean(axis=1)
    chosen = int(np.flatnonzero(best.lams_ == sparse.lam_)[0])
    assert means[chosen] >= means.max() - best.scores_[means.argmax()].std(ddof=1) / 5**0.5


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_folds_in_several_processes_give_the_same_to_the_bit(hidden: tuple[int, ...]) -> None:
    x, y = make_classification(90, 8, random_state=0)
    found = [
        SparseClassifierCV(**{**SHORT, "hidden": hidden}, lams=4, cv=2, n_jobs=n_jobs).fit(x, y) for n_jobs in (1, 2)
    ]
    assert (found[0].scores_ == found[1].scores_).all()
    assert (found[0].decision_function(x) == found[1].decision_function(x)).all()


@pytest.mark.parametrize("classes", [True, False])
def test_rows_of_a_group_are_in_one_fold(classes: bool) -> None:
    """The group is all that a feature tells: within folds of whole groups, it says nothing about others."""
    rng = np.random.default_rng(0)
    animal = np.repeat(np.arange(20), 10)
    x = np.eye(20)[animal] + 0.01 * rng.normal(size=(200, 20))
    level = rng.permutation(np.repeat([0.0, 1.0], 10))[animal]
    kind = SparseClassifierCV if classes else SparseRegressorCV
    options: dict[str, Any] = {"hidden": (), "lams": [0.001, 0.1], "points": 1}
    by_row = kind(**options, cv=_mixed(animal)).fit(x, level)
    by_animal = kind(**options).fit(x, level, groups=animal)
    assert by_row.scores_.max() > 0.9
    assert by_animal.scores_.mean() < 0.7


def _mixed(animal: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    fold = np.arange(len(animal)) % 5
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]


def test_a_splitter_may_use_the_groups() -> None:
    x, y = table(60)
    groups = np.repeat(np.arange(6), 10)
    ours = SparseRegressorCV(hidden=(), cv=GroupKFold(3), lams=3).fit(x, y, groups=groups)
    assert ours.scores_.shape == (3, 3)


@pytest.mark.slow
def test_the_null_lam_selects_nothing_from_noise_in_95_percent() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 30))
    empty = [
        not SparseRegressor("null", hidden=(), points=1).fit(x, rng.normal(size=80)).support_.any() for _ in range(200)
    ]
    assert 0.9 <= np.mean(empty) <= 0.99  # within 3 standard deviations
    x, y = table()
    assert SparseRegressor("null", hidden=()).fit(x, y).support_.nonzero()[0].tolist() == [3, 7]
    labels = np.where(y > 0, "a", "b")
    assert SparseClassifier("null", hidden=()).fit(x, labels).support_.nonzero()[0].tolist() == [3, 7]


@pytest.mark.slow
def test_the_null_lam_of_networks_selects_nothing_from_noise() -> None:
    x, y = table()
    settings = {**SHORT, "epochs": 20, "lr": 0.03, "points": 1}
    assert SparseRegressor("null", **settings).fit(x, y / y.std()).support_.nonzero()[0].tolist() == [3, 7]
    noise = np.random.default_rng(3)
    assert not SparseRegressor("null", **settings).fit(x, noise.normal(size=100)).support_.any()


def test_copies_of_a_column_are_told_apart_where_a_number_is_asked_for() -> None:
    x, y = table()
    twice = np.hstack([x, x[:, [7]], 5 - x[:, [3]]])
    for count in (1, 2, 3):
        model = SparseRegressor(features=count, hidden=()).fit(twice, y)
        assert model.support_.sum() == count
        kept = [*range(20), 7, 3]
        assert len({kept[i] for i in model.support_.nonzero()[0]}) == count


def test_features_are_counted_in_groups() -> None:
    x, y = table()
    groups = [[3, 4, 5], [7, 8]]
    for hidden in ((), (8,)):
        model = SparseRegressor(features=2, **{**SHORT, "hidden": hidden}, feature_groups=groups).fit(x, y)
        assert model.support_.nonzero()[0].tolist() == [3, 4, 5, 7, 8]


@pytest.mark.parametrize(("features", "count"), [(3, 3), ("best", None), ("one-se", None)])
def test_the_selector_passes_on_the_features_and_their_names(features: Any, count: int | None) -> None:
    x, y = make_classification(150, 10, n_informative=3, n_redundant=0, class_sep=2, shuffle=False, random_state=0)
    frame = pd.DataFrame(x, columns=[f"column {i}" for i in range(10)])
    selector = FeatureSelector(SparseClassifier(hidden=(), points=2), features=features, lams=8, cv=3)
    pipeline = make_pipeline(StandardScaler(), selector).set_output(transform="pandas")
    found = pipeline.fit_transform(frame, y)
    assert list(found.columns) == selector.get_feature_names_out(frame.columns).tolist()
    assert len(found.columns) == (selector.get_support().sum() if count is None else count)
    assert len(found.columns) > 0
    assert (selector.feature_importances_ > 0)[selector.get_support()].all()


@pytest.mark.slow
def test_the_selector_by_a_false_discovery_rate_is_a_stability_selection() -> None:
    x, y = table(80, 10)
    selector = FeatureSelector(SparseRegressor(hidden=(), tol=1e-3), fdr=0.3, pairs=3, random_state=0).fit(x, y)
    stable = StabilitySelection(SparseRegressor(hidden=(), tol=1e-3), fdr=0.3, pairs=3, random_state=0).fit(x, y)
    assert selector.get_support().tolist() == stable.get_support().tolist()
    assert selector.get_support()[[3, 7]].any()
    assert (selector.feature_importances_ == stable.scores_).all()


def test_the_selector_takes_the_estimator_that_suits_the_targets() -> None:
    x, y = make_classification(60, 4, random_state=0)
    for targets, kind in ((y, SparseClassifier), (x[:, 0], SparseRegressor)):
        assert type(FeatureSelector(features=2)._estimator(targets)) is kind


@pytest.mark.slow
def test_the_folds_choose_the_penalty_of_a_network() -> None:
    """Under noise, MCP keeps features that learned it by heart; without noise, L1 shrinks those that matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 40)).astype(np.float32)
    clean = x[:, :3] @ np.array([1.0, -1.0, 0.5])
    noisy = clean + 2 * rng.normal(size=240)
    options: dict[str, Any] = {
        "epochs": 60,
        "batch_size": 100,
        "points": 1,
        "cv": 2,
        "lams": [0.15, 0.3],
        "random_state": 0,
    }
    for y, wanted in ((noisy / noisy.std(), "l1"), (clean / clean.std(), "mcp")):
        found = SparseRegressorCV(**options).fit(x, y)
        ways = {penalty: SparseRegressorCV(penalty=penalty, **options).fit(x, y) for penalty in ("mcp", "l1")}
        best = {penalty: way.scores_.mean(axis=1).max() for penalty, way in ways.items()}
        assert found.penalty_ == wanted == max(best, key=lambda penalty: best[penalty])
        np.testing.assert_array_equal(found.scores_, ways[wanted].scores_)
        np.testing.assert_array_equal(found.predict(x), ways[wanted].predict(x))
        assert found.get_params()["penalty"] == "auto"


@pytest.mark.slow
def test_early_stopping_ends_where_the_objective_on_validation_rows_rises() -> None:
    x, y = table(100)
    settings = {**SHORT, "epochs": 60, "batch_size": 25, "lr": 0.02}
    long = SparseRegressor(0.001, **settings).fit(x, y)
    stopped = SparseRegressor(0.001, **settings, early_stopping=True).fit(x, y)
    others, answers = table(500, seed=1)
    assert stopped.score(others, answers) > long.score(others, answers)
    assert long.score(x, y) > stopped.score(x, y)


def test_early_stopping_keeps_groups_together() -> None:
    x, y = table(60)
    seen: list[set[int]] = []

    class Watching(SparseRegressor):
        def _parts(self, table: Any, seed: int, share: float) -> Any:
            parts = super()._parts(table, seed, share)
            seen.extend(set(part.groups.tolist()) for part in parts)
            return parts

    Watching(0.01, **SHORT, early_stopping=True).fit(x, y, groups=np.repeat(np.arange(12), 5))
    assert all(seen)
    assert not seen[0] & seen[1]


def test_any_network_by_a_factory() -> None:
    x, y = table(200)

    def build(features: int, outputs: int) -> torch.nn.Module:
        norm = torch.nn.Sequential(torch.nn.Linear(features, 16), torch.nn.LayerNorm(16), torch.nn.Tanh())
        return torch.nn.Sequential(norm, torch.nn.Linear(16, outputs))

    model = SparseRegressor(features=2, module=build, epochs=80, points=2, random_state=0).fit(x, y / y.std())
    assert model.support_.nonzero()[0].tolist() == [3, 7]
    other = x.copy()
    other[:, ~model.support_] = 1e6
    assert (model.predict(other) == model.predict(x)).all()
    with pytest.raises(TypeError, match=r"module must return a torch.nn.Module for \(features, outputs\); got 3"):
        SparseRegressor(module=lambda features, outputs: 3).fit(x, y)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SparseRegressor("nil"), "lam must be a number of at least 0, or \"null\"; got 'nil'"),
        (SparseRegressorCV(lams=1), "lams must be a whole number of at least 2; got 1"),
        (SparseRegressorCV(lams=[0.1]), "lams must have two different values at least; got [0.1]"),
        (SparseRegressorCV(lams=[0.1, -1.0]), "a value of lams must be a number of at least 0; got -1.0"),
        (SparseRegressorCV(rule="1se"), "unknown rule '1se'"),
        (SparseRegressor(validation_fraction=1.0), "validation_fraction must be below 1; got 1.0"),
        (FeatureSelector(features="most"), "unknown features 'most'"),
        (FeatureSelector(features=0), "features must be a whole number of at least 1; got 0"),
        (FeatureSelector(SparseRegressor(hidden=()), features=21), "features must be at most the number of features"),
    ],
)
def test_parameters_of_no_use(estimator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        estimator.fit(*table())


def test_groups_need_one_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"groups must have the group of each of the 100 rows; got the shape \(3,\)"):
        SparseRegressor(hidden=()).fit(*table(), groups=[1, 2, 3])
    animals = np.repeat(["m1", "m2", "m3", "m4"], 25).astype(object)
    for missing in (None, float("nan"), pd.NA):
        animals[30] = missing
        with pytest.raises(ValueError, match=f"the group of each of the 100 rows; row 30 has {missing}"):
            SparseRegressor(hidden=()).fit(*table(), groups=animals)
    animals[30] = 7
    with pytest.raises(ValueError, match="groups must be of one kind, such as numbers or text"):
        SparseRegressor(hidden=()).fit(*table(), groups=animals)
    with pytest.raises(ValueError, match="needs at least 2 groups; got 1"):
        SparseRegressor(0.1, early_stopping=True, **SHORT).fit(*table(), groups=np.zeros(100))
