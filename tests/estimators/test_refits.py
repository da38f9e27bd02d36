"""Columns scaled on the training rows, and models trained on without their penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlasso.estimators import (
    SparseClassifier,
    SparseClassifierCV,
    SparseCox,
    SparseRegressor,
    SparseRegressorCV,
    StabilitySelection,
)

SHORT: dict[str, Any] = {"hidden": (8,), "epochs": 40, "points": 1, "random_state": 0}


def table(n: int = 80, p: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Columns of unlike means and scales, one of them constant; 3 and 7 matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    y = x[:, 3] - 2 * x[:, 7] + rng.normal(size=n)
    x = x * rng.uniform(0.01, 50, p) + 10 * rng.normal(size=p)
    x[:, 5] = 0.1
    return x, y


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_columns_are_scaled_as_by_a_step_before(hidden: tuple[int, ...]) -> None:
    x, y = table()
    options = {**SHORT, "hidden": hidden}
    inside = SparseRegressor(0.1, standardize=True, **options).fit(x, y)
    before = make_pipeline(StandardScaler(), SparseRegressor(0.1, **options)).fit(x, y)
    np.testing.assert_allclose(inside.predict(x), before.predict(x), rtol=1e-6, atol=1e-8)
    assert (inside.support_ == before[-1].support_).all()
    if not hidden:
        np.testing.assert_allclose(x @ inside.coef_ + inside.intercept_, before.predict(x))


def test_weights_count_in_the_scales() -> None:
    x, y = table()
    weights = np.where(np.arange(80) < 30, 2.0, np.where(np.arange(80) < 40, 0.0, 1.0))
    twice = np.repeat(np.arange(80), weights.astype(int))
    for relaxed in (False, True):
        model = SparseRegressor(0.1, hidden=(), standardize=True, relaxed=relaxed)
        weighted = model.fit(x, y, weights).coef_
        np.testing.assert_allclose(weighted, model.fit(x[twice], y[twice]).coef_, rtol=1e-6, atol=1e-9)


def test_each_fold_has_scales_of_its_own() -> None:
    x, y = table(60)
    lams = [0.1, 0.3]
    found = SparseRegressorCV(hidden=(), standardize=True, lams=lams, cv=KFold(3)).fit(x, y)
    for fold, (training, held_out) in enumerate(KFold(3).split(x)):
        for row, lam in enumerate(lams):
            model = make_pipeline(StandardScaler(), SparseRegressor(lam, hidden=(), points=1))
            score = model.fit(x[training], y[training]).score(x[held_out], y[held_out])
            assert found.scores_[row, fold] == pytest.approx(score, abs=1e-8)


@pytest.mark.parametrize("base", [SparseRegressor(hidden=()), SparseRegressor(**{**SHORT, "epochs": 5})])
def test_stability_selection_of_scaled_columns(base: SparseRegressor) -> None:
    x, y = table()
    inside = StabilitySelection(base.set_params(standardize=True), pairs=2, random_state=0).fit(x, y)
    scaled = StandardScaler().fit_transform(x)
    before = StabilitySelection(base.set_params(standardize=False), pairs=2, random_state=0).fit(scaled, y)
    np.testing.assert_allclose(inside.scores_, before.scores_, atol=1e-6)


def test_a_relaxed_regression_is_least_squares_on_its_features() -> None:
    x, y = table()
    plain = SparseRegressor(0.5, hidden=(), standardize=True).fit(x, y)
    relaxed = SparseRegressor(0.5, hidden=(), standardize=True, relaxed=True).fit(x, y)
    assert (relaxed.support_ == plain.support_).all()
    assert 0 < plain.support_.sum() < 9
    scaled = StandardScaler().fit_transform(x)[:, plain.support_]
    gram = scaled.T @ scaled + 1e-3 * len(x) * np.eye(scaled.shape[1])
    expected = np.linalg.solve(gram, scaled.T @ (y - y.mean())) / x[:, plain.support_].std(axis=0)
    np.testing.assert_allclose(relaxed.coef_[plain.support_], expected, rtol=1e-6)
    assert relaxed.path_[0].loss < plain.path_[0].loss


@pytest.mark.parametrize("classes", [2, 3])
def test_a_relaxed_classifier_is_the_logistic_regression_of_its_features(classes: int) -> None:
    x, y = make_classification(200, 12, n_informative=4, n_classes=classes, random_state=0)
    relaxed = SparseClassifier(0.1, hidden=(), standardize=True, relaxed=True).fit(x, y)
    assert 0 < relaxed.support_.sum() < 12
    scaled = StandardScaler().fit_transform(x)[:, relaxed.support_]
    expected = LogisticRegression(C=1 / (1e-3 * len(x)), tol=1e-10, max_iter=10_000).fit(scaled, y)
    np.testing.assert_allclose(relaxed.predict_proba(x), expected.predict_proba(scaled), atol=1e-5)


def test_classes_that_can_be_told_apart_have_a_finite_model() -> None:
    x, _ = table()
    classes = x[:, 3] > x[:, 3].mean()
    relaxed = SparseClassifier(0.1, hidden=(), standardize=True, relaxed=True).fit(x, classes)
    assert np.isfinite(relaxed.coef_).all()
    assert relaxed.score(x, classes) > 0.97


def test_a_relaxed_model_of_survival_orders_as_well() -> None:
    x, _ = table(200)
    time = np.random.default_rng(1).exponential(np.exp(StandardScaler().fit_transform(x)[:, 7]))
    plain, relaxed = (
        SparseCox(0.3, hidden=(), standardize=True, relaxed=each).fit(x, np.stack([time < 2, time.clip(max=2)], 1))
        for each in (False, True)
    )
    assert (plain.support_ == relaxed.support_).all()
    assert np.abs(relaxed.coef_[7]) > np.abs(plain.coef_[7])


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_relaxed_points_leave_the_path_as_it_is(hidden: tuple[int, ...]) -> None:
    x, y = table()
    options = {
        **SHORT,
        "hidden": hidden,
        "penalty": "l1",
        "standardize": True,
        "lams": [0.05, 0.3],
        "cv": 2,
        "points": 3,
    }
    plain, relaxed = (SparseRegressorCV(relaxed=each, **options).fit(x, y) for each in (False, True))
    assert (plain.features_ == relaxed.features_).all()
    assert (plain.scores_ != relaxed.scores_).all()


def test_a_relaxed_network_reads_no_other_features() -> None:
    x, y = table(200)
    plain, relaxed = (
        SparseRegressor(0.1, standardize=True, relaxed=each, **SHORT).fit(x, y - y.mean()) for each in (False, True)
    )
    assert (plain.support_ == relaxed.support_).all()
    assert relaxed.path_[0].loss < plain.path_[0].loss
    other = x.copy()
    other[:, ~relaxed.support_] = 1e6
    assert (relaxed.predict(other) == relaxed.predict(x)).all()


@pytest.mark.slow
def test_relaxed_scores_choose_fewer_features() -> None:
    """Under the penalty a model needs more features, since it shrinks the weights of those that matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 30))
    y = x[:, :4] @ [3, -3, 2, 2] + rng.normal(size=100)
    options: dict[str, Any] = {"hidden": (), "lams": 12, "cv": 4, "tol": 1e-4}
    plain, relaxed = (SparseRegressorCV(relaxed=each, **options).fit(x, y) for each in (False, True))
    assert relaxed.support_.nonzero()[0].tolist() == [0, 1, 2, 3]
    assert plain.support_.sum() > 4
    x, y = make_classification(100, 30, n_informative=3, n_redundant=0, random_state=0)
    plain, relaxed = (SparseClassifierCV(relaxed=each, **options).fit(x, y) for each in (False, True))
    assert relaxed.scores_.mean(axis=1).max() >= plain.scores_.mean(axis=1).max() - 0.01
