"""The minimum of a quadratic function under the elastic net, and the linear models that are found with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

from torchlasso.estimators import SparseClassifier, SparseRegressor, convex
from torchlasso.estimators.input_groups import InputGroups
from torchlasso.estimators.losses import SQUARED, Targets
from torchlasso.estimators.quadratic import NumberPenalty, QuadraticLasso


def problem(seed: int, rows: int, size: int) -> tuple[np.ndarray, np.ndarray, NumberPenalty]:
    """A problem with correlated numbers, some of them free, some at least 0; of fewer rows, A is singular."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, size)) + 2 * rng.normal(size=(rows, 1))
    strengths = rng.uniform(0.05, 0.5, size)
    strengths[:2] = 0.0
    penalty = NumberPenalty(strengths, rng.uniform(0, 0.1, size) * (seed % 2), rng.random(size) < 0.3 * (seed % 3))
    return x.T @ x / rows, x.T @ rng.normal(size=rows) / rows + 0.5 * rng.normal(size=size) * (rows > size), penalty


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rows", "size"), [(200, 4), (200, 60), (30, 60)])
def test_the_minimum_is_stationary_from_any_start(seed: int, rows: int, size: int) -> None:
    curvature, b, penalty = problem(seed, rows, size)
    a = curvature + np.diag(penalty.ridge)
    anywhere = np.random.default_rng(seed).normal(size=size)
    starts = [np.zeros(size), np.where(penalty.positive, np.abs(anywhere), anywhere)]
    found = [QuadraticLasso(a, b, penalty).minimum(start, near=1e-9) for start in starts]
    for u in found:
        assert (u[penalty.positive] >= 0).all()
        assert penalty.distances(u, curvature @ u - b).max() <= 1e-9
    values = [u @ curvature @ u / 2 - b @ u + penalty.value(u) for u in found]
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    assert (found[0] == 0).any() or size == 4


def test_copies_share_their_weight() -> None:
    a = np.array([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]])
    penalty = NumberPenalty(np.full(3, 0.1), np.zeros(3), np.zeros(3, dtype=bool))
    found = QuadraticLasso(a, np.array([1.0, 1.0, 0.2]), penalty).minimum(np.zeros(3), near=1e-10)
    np.testing.assert_allclose(found, [0.5, 0.5, -0.2], atol=1e-5)


def test_groups_that_are_left_out_stay_zero_in_small_tables() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = Targets(x.sum(dim=1, keepdim=True), torch.ones(40).double(), 1, SQUARED)
    groups = InputGroups(torch.arange(3), torch.tensor([1.0, torch.inf, 1.0]).double(), torch.zeros(3).double())
    found = convex.LinearProblem(x, targets, groups, outputs=1).minimum(0.1)
    assert found.is_exact
    assert (found.coef[:, 0] != 0).tolist() == [True, False, True]


@pytest.mark.parametrize("positive", [False, True])
def test_small_tables_have_the_models_of_large_ones(positive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    y = x[:, 0] - x[:, 1] + rng.normal(size=60)
    found = []
    for small in (convex.SMALL, 0):
        monkeypatch.setattr(convex, "SMALL", small)
        found.append(SparseRegressor(0.05, l1_ratio=0.9, hidden=(), points=5, positive=positive).fit(x, y))
    np.testing.assert_allclose(found[0].coef_, found[1].coef_, atol=1e-7)
    assert [point.features for point in found[0].path_] == [point.features for point in found[1].path_]


@pytest.mark.parametrize("tol", [1e-9, 1e-12])
def test_a_number_of_features_that_no_minimum_reads_is_refused_at_any_precision(tol: float) -> None:
    """The classes can be told apart, so the model hardly changes as λ falls: rounding must not add features."""
    x, y = load_breast_cancer(return_X_y=True)
    x, _, y, _ = train_test_split(x, y, stratify=y, random_state=0)
    rows, _ = list(StratifiedKFold(5).split(x, y))[2]
    selector = SparseClassifier(hidden=(), features=16, tol=tol)
    with pytest.raises(ValueError, match="no λ leaves 16 features"):
        selector.fit(StandardScaler().fit_transform(x[rows]), y[rows])
