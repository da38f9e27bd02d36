"""Linear models whose weights are at least 0: the minima of scikit-learn and scipy, at every λ of a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from sklearn.linear_model import ElasticNet, Lasso

from tests.support.pairwise import pairwise
from torchlasso.estimators import (
    SparseClassifier,
    SparseCox,
    SparseRegressor,
    SparseRegressorCV,
    StabilitySelection,
)


def rows(seed: int = 0) -> tuple[Any, Any]:
    """Correlated columns with means, of which some have a negative weight."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, 30)) + rng.normal(size=30)
    x[:, 1:] += x[:, :1]
    return x, x @ rng.normal(size=30) * 0.3 + rng.normal(size=50)


@pairwise(lam=(1e-3, 0.05, 0.3), l1_ratio=(1.0, 0.5), intercept=(True, False), standardize=(True, False))
def test_the_minimum_is_that_of_scikit_learn(lam: float, l1_ratio: float, intercept: bool, standardize: bool) -> None:
    for seed in range(3):
        x, y = rows(seed)
        options: dict[str, Any] = {"fit_intercept": intercept, "l1_ratio": l1_ratio, "positive": True}
        model = SparseRegressor(lam, hidden=(), standardize=standardize, points=3, **options).fit(x, y)
        spread = x.std(axis=0) if standardize else 1.0
        centre = x.mean(axis=0) if standardize else 0.0
        theirs = ElasticNet(lam, tol=1e-12, max_iter=500_000, **options).fit((x - centre) / spread, y)
        assert np.allclose(model.coef_, theirs.coef_ / spread, atol=1e-8)
        assert np.allclose(model.predict(x), theirs.predict((x - centre) / spread), atol=1e-7)
        assert (model.coef_ >= 0).all()
        assert ((model.coef_ > 0) == model.support_).all()
    free = SparseRegressor(1e-3, hidden=(), points=3, fit_intercept=intercept).fit(x, y)
    assert (free.coef_ < 0).any()


def test_features_that_are_kept_are_at_least_0_too() -> None:
    x, y = rows()
    model = SparseRegressor(0.1, hidden=(), positive=True, keep=[*range(30)], fit_intercept=False).fit(x, y)
    assert np.allclose(model.coef_, nnls(x, y)[0], atol=1e-8)
    some = SparseRegressor(0.2, hidden=(), positive=True, keep=[0, 1, 2]).fit(x, y)
    assert (some.coef_ >= 0).all()


def test_the_path_ends_where_nothing_pulls_upwards() -> None:
    x, y = rows()
    model = SparseRegressor(0.01, hidden=(), positive=True).fit(x, y)
    centred = (x - x.mean(axis=0)).T @ (y - y.mean()) / len(y)
    assert model.path_[-1].lam == pytest.approx(centred.max())
    assert model.path_[-2].features > 0
    for number in (1, 3):
        assert SparseRegressor(features=number, hidden=(), positive=True).fit(x, y).support_.sum() == number
    with pytest.raises(ValueError, match=r"no λ leaves 29 features: at λ = .* the model reads \d+"):
        SparseRegressor(features=29, hidden=(), positive=True).fit(x, y)
    against = SparseRegressor(0.01, hidden=(), positive=True).fit(x[:, :1], -x[:, 0])
    assert not against.support_.any()


def test_a_refit_and_the_folds_are_at_least_0() -> None:
    x, y = rows()
    model = SparseRegressor(0.1, hidden=(), positive=True, relaxed=True).fit(x, y)
    first = SparseRegressor(0.1, hidden=(), positive=True).fit(x, y)
    assert (model.coef_ >= 0).all()
    assert set(np.flatnonzero(model.coef_)) <= set(np.flatnonzero(first.coef_))
    assert ((y - model.predict(x)) ** 2).mean() < ((y - first.predict(x)) ** 2).mean()
    chosen = SparseRegressorCV(hidden=(), positive=True, relaxed=True, lams=8, cv=3, random_state=0).fit(x, y)
    assert (chosen.coef_ >= 0).all()
    assert chosen.support_.any()


@pytest.mark.parametrize("kind", ["classes", "survival"])
def test_other_losses_of_one_output(kind: str) -> None:
    x, y = rows()
    x = x - x.mean(axis=0)
    model: Any
    if kind == "classes":
        model = SparseClassifier(0.02, hidden=(), positive=True, fit_intercept=False).fit(x, y > 0)
        value: Callable[[Any], Any] = lambda w: np.logaddexp(0, np.where(y > 0, -1, 1) * (x @ w)).mean()  # noqa: E731
        coef = model.coef_.ravel()
    else:
        times = np.random.default_rng(0).exponential(np.exp(-y / 4))
        model = SparseCox(0.02, hidden=(), positive=True).fit(x, np.stack([np.ones(50), times], axis=1))
        order = np.argsort(times)
        at_risk = np.tril(np.ones((50, 50))).T > 0

        def value(w: Any) -> Any:
            risk = (x @ w)[order]
            return -(risk - np.log(np.where(at_risk, np.exp(risk), 0).sum(axis=1))).mean()

        coef = model.coef_
    objective = lambda w: value(w) + 0.02 * w.sum()  # noqa: E731
    found = minimize(objective, np.zeros(30), bounds=[(0, None)] * 30, options={"maxiter": 5000, "ftol": 1e-15})
    assert (coef >= 0).all()
    assert objective(coef) <= found.fun + 1e-9
    assert np.allclose(coef, found.x, atol=2e-3)


@pytest.mark.slow
def test_stability_selection_selects_no_feature_with_a_negative_weight() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10))
    y = x[:, 3] - x[:, 7] + 0.5 * rng.normal(size=200)
    found = {}
    for positive in (False, True):
        base = SparseRegressor(hidden=(), positive=positive, tol=1e-5)
        selector = StabilitySelection(base, pairs=6, random_state=0).fit(x, y)
        found[positive] = selector.get_support(indices=True).tolist()
    assert found[False] == [3, 7]
    assert 3 in found[True]
    assert 7 not in found[True]


@pytest.mark.parametrize(
    ("model", "wide", "said"),
    [
        (SparseRegressor(positive=True), False, r"positive=True is for linear models: give hidden=\(\)"),
        (
            SparseRegressor(hidden=(), positive=True),
            True,
            "positive=True is for a model with one output; this",
        ),
        (
            SparseRegressor(hidden=(), positive=True, feature_groups=[[0, 1]]),
            False,
            "positive=True is for single features, and feature_groups has groups of several",
        ),
        (
            StabilitySelection(SparseRegressor(hidden=(), positive=True), pairs=2),
            True,
            "positive=True is for a model with one output",
        ),
    ],
)
def test_where_it_cannot_be(model: Any, wide: bool, said: str) -> None:
    x, y = rows()
    with pytest.raises(ValueError, match=said):
        model.fit(x, np.stack([y, y], axis=1) if wide else y)


def test_it_is_a_lasso_of_scikit_learn() -> None:
    x, y = rows(4)
    ours = SparseRegressor(0.1, hidden=(), positive=True).fit(x, y)
    assert np.allclose(ours.coef_, Lasso(0.1, positive=True, tol=1e-12, max_iter=100_000).fit(x, y).coef_, atol=1e-8)
