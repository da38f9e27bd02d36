"""The non-negative lasso: beside scikit-learn's, under several optimizers, with a certificate of one side."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import torchlasso as tl

FAST = {"betas": (0.8, 0.99)}  # a short memory suits gradients without noise
CASES = {
    "SGD momentum": (tl.ProxSGD, {"momentum": 0.9}, 0.02),
    "Adam": (tl.ProxAdam, FAST, 0.1),
    "Adam, fused": (tl.ProxAdam, {"fused": True, **FAST}, 0.1),
    "Adam, normal map": (tl.ProxAdam, {"form": "normal-map", **FAST}, 0.1),
    "Rprop": (tl.proximal(torch.optim.Rprop), {}, 0.01),
}
STEPS = 600
POSITIVE = tl.L1(over=tl.NonNegative())


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 20)) + 0.5 * rng.standard_normal((80, 1))
    truth = np.where(rng.random(20) < 0.4, rng.standard_normal(20), 0.0)
    return torch.from_numpy(x), torch.from_numpy(x @ truth + 0.3 * rng.standard_normal(80))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_limit_is_the_solution_of_scikit_learn(case):
    cls, options, lr = CASES[case]
    x, y = problem()
    w = nn.Parameter(torch.linspace(-0.5, 0.5, 20, dtype=torch.float64))
    optimizer = cls([w], lr=lr, penalty=POSITIVE, lam=0.1, **options)
    for step in range(STEPS):
        if case != "Rprop":
            optimizer.param_groups[0]["lr"] = lr * max(1e-4, 1 - step / STEPS)
        w.grad = x.T @ (x @ w.detach() - y) / len(y)
        optimizer.step()
    best = torch.from_numpy(Lasso(0.1, positive=True, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(x, y).coef_)
    torch.testing.assert_close(w.detach(), best, atol=1e-5, rtol=0)
    assert torch.equal(w != 0, best != 0)
    assert (Lasso(0.1, fit_intercept=False).fit(x, y).coef_ < 0).any()  # the constraint matters
    w.grad = x.T @ (x @ w.detach() - y) / len(y)
    groups = [{"params": [w], "penalty": POSITIVE, "lam": 0.1}]
    assert tl.stationarity(groups).max < 1e-3
    assert (w.grad[w == 0] > 0.1).any()  # which a certificate of two sides would not allow


def test_groups_of_non_negative_weights_are_refused():
    with pytest.raises(ValueError, match="over must be groups, whose weights may have any sign; got NonNegative"):
        tl.SparseGroup(over=tl.NonNegative())


def test_the_certificate_has_one_side():
    w = torch.tensor([0.0, 0.0, 0.0, 2.0, -1.0])
    grad = torch.tensor([5.0, -0.4, -1.5, -1.0, 0.0])
    assert POSITIVE.subdiff_distance(w, grad, 1.0).tolist() == [0.0, 0.0, 0.5, 0.0, torch.inf]
    assert POSITIVE.lambda_max(grad).item() == 1.5


@pytest.mark.parametrize("penalty", [tl.L1, tl.ElasticNet, tl.MCP, tl.SCAD, tl.LogSum, tl.LHalf])
def test_the_prox_is_the_least_over_weights_of_zero_and_above(penalty):
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    u = penalty(over=tl.NonNegative()).prox(z, 0.5, 0.7)
    grid = torch.linspace(0, 4, 4001, dtype=torch.float64)
    cost = (grid[:, None] - z).square() / 2 + 0.7 * penalty().phi(grid, 0.5)[:, None]
    ours = (u - z).square() / 2 + 0.7 * penalty().phi(u, 0.5)
    assert (ours <= cost.min(dim=0).values + 1e-12).all()
    assert (u >= 0).all()
