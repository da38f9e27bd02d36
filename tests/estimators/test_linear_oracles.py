"""Without hidden layers, the estimators find the solutions of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, MultiTaskLasso

from torchlasso.estimators import (
    FeatureSelector,
    SparseClassifier,
    SparseCox,
    SparseRegressor,
    SparseRegressorCV,
    StabilitySelection,
    base,
)


def table(n: int = 60, p: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales and means, and a target for which three of them matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p)) * rng.uniform(0.2, 3, p) + rng.normal(size=p)
    return x, x[:, 1] - x[:, 4] + 0.5 * x[:, 7] + rng.normal(size=n)


@pytest.mark.parametrize("p", [20, 150])
@pytest.mark.parametrize("lam", [1.0, 0.1, 0.01])
def test_lasso(lam: float, p: int) -> None:
    x, y = table(p=p)
    found = SparseRegressor(lam, hidden=(), points=1).fit(x, y)
    wanted = Lasso(lam, tol=1e-12, max_iter=1_000_000).fit(x, y)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-7)
    np.testing.assert_allclose(found.intercept_, wanted.intercept_, atol=1e-7)
    assert (found.support_ == (wanted.coef_ != 0)).all()


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_elastic_net(fit_intercept: bool) -> None:
    x, y = table()
    found = SparseRegressor(0.3, l1_ratio=0.4, hidden=(), points=1, fit_intercept=fit_intercept).fit(x, y)
    wanted = ElasticNet(alpha=0.3, l1_ratio=0.4, tol=1e-12, max_iter=1_000_000, fit_intercept=fit_intercept).fit(x, y)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-7)
    np.testing.assert_allclose(found.predict(x), wanted.predict(x), atol=1e-6)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_several_targets(fit_intercept: bool) -> None:
    x, y = table()
    targets = np.stack([y, 2 - y + x[:, 0]], axis=1)
    found = SparseRegressor(0.3, hidden=(), points=1, fit_intercept=fit_intercept).fit(x, targets)
    wanted = MultiTaskLasso(0.3, tol=1e-12, max_iter=1_000_000, fit_intercept=fit_intercept).fit(x, targets)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-7)
    np.testing.assert_allclose(found.intercept_, wanted.intercept_ * np.ones(2), atol=1e-7)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_weights_of_rows(fit_intercept: bool, l1_ratio: float, is_sparse: bool) -> None:
    x, y = table()
    x[np.random.default_rng(2).random(x.shape) < 0.4] = 0.0
    weights = np.random.default_rng(1).integers(0, 4, len(x)).astype(float)
    options = {"l1_ratio": l1_ratio, "fit_intercept": fit_intercept}
    rows = csr_array(x) if is_sparse else x
    found = SparseRegressor(0.2, hidden=(), points=1, **options).fit(rows, y, sample_weight=weights)
    wanted = ElasticNet(0.2, tol=1e-12, max_iter=1_000_000, **options).fit(x, y, sample_weight=weights)
    assert 2 < found.support_.sum() < 20
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-7)
    np.testing.assert_allclose(found.predict(rows), wanted.predict(x), atol=1e-6)
    labels, lam = y > np.median(y), 0.05
    found = SparseClassifier(lam, hidden=(), points=1, **options).fit(rows, labels, sample_weight=weights)
    of_sums = {"C": 1 / (lam * weights.sum()), "solver": "saga", "tol": 1e-12, "max_iter": 100_000}
    wanted = LogisticRegression(**of_sums, **options).fit(x, labels, sample_weight=weights)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-6)
    np.testing.assert_allclose(found.intercept_, wanted.intercept_, atol=1e-6)


@pytest.mark.slow
def test_sparse_matrices_are_not_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = table(80, 120)
    x[np.random.default_rng(2).random(x.shape) < 0.7] = 0.0
    monkeypatch.setattr(base, "LARGEST", x.size - 1)
    fits: list[tuple[Any, Any]] = [
        (SparseRegressor(0.1, hidden=(), relaxed=True), y),
        (SparseRegressor(features=7, hidden=(), feature_groups=[[1, 2], [3, 4, 5]], keep=[9]), y),
        (SparseRegressor("null", hidden=(), random_state=0), np.stack([y, -y + x[:, 3]], axis=1)),
        (SparseClassifier(0.05, hidden=()), np.digitize(y, [-0.5, 0.5])),
        (SparseRegressorCV(hidden=(), cv=3, lams=5, relaxed=True), y),
        (SparseCox(0.05, hidden=()), np.stack([y > -1, y - y.min()], axis=1)),
        (FeatureSelector(SparseRegressor(hidden=()), features=3), y),
        (StabilitySelection(SparseRegressor(hidden=(), tol=1e-5), fdr=1.0, pairs=2, random_state=0), y),
    ]
    for estimator, targets in fits:
        found, wanted = (clone(estimator).fit(rows, targets) for rows in (csr_array(x), x))
        if isinstance(estimator, base.SparseEstimator):
            np.testing.assert_array_equal(found.support_, wanted.support_)
            for rows in (x, csr_array(x)):
                np.testing.assert_allclose(found.predict(rows), wanted.predict(x), atol=1e-6)
        else:
            np.testing.assert_array_equal(found.get_support(), wanted.get_support())
            np.testing.assert_array_equal(found.transform(csr_array(x)).toarray(), wanted.transform(x))
    for dense in (SparseRegressor(epochs=2), SparseRegressor(hidden=(), standardize=True), StabilitySelection(pairs=1)):
        with pytest.raises(ValueError, match=r"^X is sparse, 80 × 120, and is computed with as a dense matrix"):
            dense.fit(csr_array(x), y)


@pytest.mark.parametrize("lam", [0.1, 0.02])
def test_logistic_regression(lam: float) -> None:
    x, y = table()
    labels = np.where(y > np.median(y), "yes", "no")
    found = SparseClassifier(lam, hidden=(), points=1).fit(x, labels)
    wanted = LogisticRegression(l1_ratio=1.0, C=1 / (lam * len(x)), solver="saga", tol=1e-12, max_iter=100_000)
    wanted.fit(x, labels)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(x), wanted.predict_proba(x), atol=1e-6)


def test_a_multinomial_model_is_stationary_and_its_features_leave_all_classes_at_once() -> None:
    x, y = table()
    lam, classes = 0.05, np.digitize(y, np.quantile(y, [0.3, 0.6]))
    found = SparseClassifier(lam, hidden=(), points=1).fit(x, classes)
    gradient = x.T @ (found.predict_proba(x) - np.eye(3)[classes]) / len(x)
    norms, live = np.linalg.norm(gradient, axis=1), found.support_
    assert 0 < live.sum() < 20
    assert (norms[~live] <= lam * (1 + 1e-6)).all()
    coef = found.coef_.T[live]
    expected = -lam * coef / np.linalg.norm(coef, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient[live], expected, atol=1e-8)
    np.testing.assert_allclose(found.intercept_.sum(), 0, atol=1e-12)


@pytest.mark.slow
def test_a_tolerance_beyond_all_precision_is_a_warning() -> None:
    x, y = table()
    with pytest.warns(ConvergenceWarning, match="the linear model for λ = 0.1 is not exact: its distance from"):
        SparseRegressor(0.1, hidden=(), points=1, tol=1e-40).fit(x, y)
