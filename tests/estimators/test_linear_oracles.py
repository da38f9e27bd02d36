"""Without hidden layers, the estimators find the solutions of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, MultiTaskLasso

from torchlasso.estimators import SparseClassifier, SparseRegressor


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


def test_several_targets() -> None:
    x, y = table()
    targets = np.stack([y, 2 - y + x[:, 0]], axis=1)
    found = SparseRegressor(0.3, hidden=(), points=1).fit(x, targets)
    wanted = MultiTaskLasso(0.3, tol=1e-12, max_iter=1_000_000).fit(x, targets)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-7)


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


def test_a_tolerance_beyond_all_precision_is_a_warning() -> None:
    x, y = table()
    with pytest.warns(ConvergenceWarning, match="the linear model for λ = 0.1 is not exact: its distance from"):
        SparseRegressor(0.1, hidden=(), points=1, tol=1e-40).fit(x, y)
