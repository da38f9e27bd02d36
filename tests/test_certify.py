"""The certificates against scikit-learn: zero at its solutions, λ_max where its path begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import make_regression
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, lasso_path
from torch import Tensor, nn

import torchlasso as tl


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray]:
    x, y = make_regression(60, 20, n_informative=5, noise=2.0, random_state=0)
    return x, y / y.std()


def half_squares(w: Tensor, x: np.ndarray, y: np.ndarray) -> None:
    """The gradient of ‖Xw − y‖²/2n, scikit-learn's loss, in w.grad."""
    w.grad = None
    ((torch.from_numpy(x) @ w.flatten() - torch.from_numpy(y)) ** 2).mean().div(2).backward()


def group(w: Tensor, penalty: tl.Penalty, lam: float) -> list[dict[str, object]]:
    return [{"params": [w], "penalty": penalty, "lam": lam}]


@pytest.mark.parametrize("lam", [0.01, 0.1, 0.5])
def test_a_solution_of_scikit_learn_is_stationary(problem: tuple[np.ndarray, np.ndarray], lam: float) -> None:
    x, y = problem
    solution = Lasso(alpha=lam, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(x, y).coef_
    assert 0 < (solution == 0).sum() < 20
    w = nn.Parameter(torch.from_numpy(solution.copy()))
    half_squares(w, x, y)
    found = tl.stationarity(group(w, tl.L1(), lam))
    assert found.max < 1e-6
    for change in (lambda s: s + 0.01, lambda s: 0 * s, lambda s: s * 1.01, lambda s: s + 0.01 * (s == 0)):
        w = nn.Parameter(torch.from_numpy(change(solution)))
        half_squares(w, x, y)
        found = tl.stationarity(group(w, tl.L1(), lam))
        assert found.max >= found.mean > 1e-4


def test_an_elastic_net_of_scikit_learn_is_stationary(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = ElasticNet(alpha=0.1, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(x, y)
    w = nn.Parameter(torch.from_numpy(fit.coef_.copy()))
    half_squares(w, x, y)
    assert tl.stationarity(group(w, tl.ElasticNet(l1_ratio=0.7), 0.1)).max < 1e-6
    assert tl.stationarity(group(w, tl.L1(), 0.1)).max > 1e-3


def test_a_logistic_regression_of_scikit_learn_is_stationary() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 10))
    y = (x[:, 0] - x[:, 1] + rng.normal(size=80) > 0).astype(int)
    lam = 0.05
    fit = LogisticRegression(
        C=1 / (80 * lam), l1_ratio=1.0, solver="saga", fit_intercept=False, tol=1e-12, max_iter=50_000
    ).fit(x, y)
    w = nn.Parameter(torch.from_numpy(fit.coef_.copy()))
    nn.functional.binary_cross_entropy_with_logits(
        (torch.from_numpy(x) @ w.T).flatten(), torch.from_numpy(y).double()
    ).backward()
    found = tl.stationarity(group(w, tl.L1(), lam))
    assert found.max < 1e-6
    assert 0 < int((w == 0).sum()) < 10


def test_the_distance_is_in_units_of_lam_and_counts_blocks_alike() -> None:
    w = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, -1.0]]))
    w.grad = torch.tensor([[-0.5, 0.2], [-0.9, 1.5]])
    found = tl.stationarity(group(w, tl.L1(), 0.5))
    # |−0.5 + 0.5| = 0, (0.2 − 0.5)₊ = 0, (0.9 − 0.5)₊ = 0.4, |1.5 − 0.5| = 1, over λ = 0.5
    assert found.max == pytest.approx(2.0)
    assert found.mean == pytest.approx((0 + 0 + 0.8 + 2.0) / 4)


def test_the_distance_of_groups() -> None:
    w = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))
    w.grad = torch.tensor([[-0.6, -0.8], [0.3, 0.4], [3.0, 4.0]])
    rows = tl.L1(over=tl.Rows(weighted=False))
    found = tl.stationarity(group(w, rows, 1.0))
    assert found.max == pytest.approx(4.0)  # ‖(3, 4)‖ − 1 of the third; the first rests at −w/‖w‖
    assert found.mean == pytest.approx(4.0 / 3)
    found = tl.stationarity(group(w, tl.L1(over=tl.Rows()), 2**-0.5))  # λ√2 = 1
    assert found.max == pytest.approx(4.0 * 2**0.5)


def test_several_groups_are_pooled_and_those_without_strength_left_out() -> None:
    a, b, c, d = (nn.Parameter(torch.zeros(n)) for n in (2, 2, 3, 1))
    a.grad, b.grad, c.grad = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 12.0]), torch.full((3,), 100.0)
    groups = [*group(a, tl.L1(), 1.0), *group(b, tl.L1(), 4.0), *group(c, tl.L1(), 0.0)]
    groups.append({"params": [d], "penalty": None, "lam": 0.0})  # d has no gradient
    found = tl.stationarity(groups)
    assert found.max == pytest.approx(2.0)
    assert found.mean == pytest.approx((0 + 2 + 0 + 2) / 4)


def test_the_weights_and_gradients_are_left_alone() -> None:
    w = nn.Parameter(torch.tensor([1.0, 0.0]))
    w.grad = torch.tensor([0.5, 0.7])
    tl.stationarity(group(w, tl.L1(), 0.1))
    tl.lambda_max(group(w, tl.L1(), 0.1))
    assert (w.tolist(), w.grad.tolist()) == ([1.0, 0.0], pytest.approx([0.5, 0.7]))


def test_lambda_max_is_where_the_path_of_scikit_learn_begins(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    w = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    half_squares(w, x, y)
    found = tl.lambda_max(group(w, tl.L1(), 1.0))
    assert found == pytest.approx(np.abs(x.T @ y).max() / len(y), rel=1e-12)
    _, coefficients, _ = lasso_path(x, y, alphas=[found * (1 + 1e-9), found * 0.9])
    assert not coefficients[:, 0].any()
    assert coefficients[:, 1].any()
    assert tl.stationarity(group(w, tl.L1(), found)).max == pytest.approx(0, abs=1e-12)
    assert tl.stationarity(group(w, tl.L1(), 0.99 * found)).max > 1e-3
    assert tl.lambda_max(group(w, tl.L1(), 123.0)) == found  # the λ that the groups have does not matter


@pytest.mark.parametrize("weighted", [True, False])
def test_lambda_max_of_groups(problem: tuple[np.ndarray, np.ndarray], weighted: bool) -> None:
    x, y = problem
    w = nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
    half_squares(w, x, y)
    penalty = tl.L1(over=tl.Rows(weighted=weighted))
    norms = np.linalg.norm((x.T @ y / len(y)).reshape(5, 4), axis=1)
    found = tl.lambda_max(group(w, penalty, 1.0))
    assert found == pytest.approx(norms.max() / (2.0 if weighted else 1.0), rel=1e-12)
    assert tl.stationarity(group(w, penalty, found)).max == pytest.approx(0, abs=1e-12)
    assert tl.stationarity(group(w, penalty, 0.99 * found)).max > 1e-3


def test_lambda_max_is_the_largest_over_groups() -> None:
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    a.grad, b.grad = torch.tensor([0.5, -2.0]), torch.tensor([1.0, 1.0])
    groups = [*group(a, tl.L1(), 1.0), *group(b, tl.L1(), 0.0)]
    groups.append({"params": [nn.Parameter(torch.zeros(2))], "penalty": None, "lam": 0.0})
    assert tl.lambda_max(groups) == 2.0


def test_errors() -> None:
    w = nn.Parameter(torch.zeros(2))
    for measure in (tl.stationarity, tl.lambda_max):
        with pytest.raises(ValueError, match="no gradient"):
            measure(group(w, tl.L1(), 1.0))
    w.grad = torch.ones(2)
    for groups in (group(w, tl.L1(), 0.0), [], [{"params": [w], "penalty": None, "lam": 0.0}]):
        with pytest.raises(ValueError, match="no group has a penalty"):
            tl.stationarity(groups)
    for groups in ([], [{"params": [w], "penalty": None, "lam": 0.0}]):
        with pytest.raises(ValueError, match="no group has a penalty"):
            tl.lambda_max(groups)
