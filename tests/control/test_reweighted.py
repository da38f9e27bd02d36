"""Reweighted: its weights, the adaptive lasso of a reference solver, and the log-sum penalty at its fixed points."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import torchlasso as tl

# name -> class, options, and the number of steps in which it surely reaches a solution of the problem
OPTIMIZERS = {"ProxSGD": (tl.ProxSGD, {}, 3000), "ProxAdam": (tl.ProxAdam, {"lr": 0.03}, 1500)}
SOLVED = 1e-6  # of λ: how far from stationary weights may be that training is stopped at
EACH = pytest.mark.parametrize("name", OPTIMIZERS)


class LeastSquares:
    """The problem ½‖Xw − y‖²/n in float64, with correlated columns of different scales; few of them matter."""

    def __init__(self, n: int = 100, p: int = 40, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.x = (rng.standard_normal((n, p)) + 0.5 * rng.standard_normal((n, 1))) * 10 ** rng.uniform(-0.3, 0.3, p)
        self.truth = np.where(rng.random(p) < 0.25, rng.choice([-1.0, 1.0], p) * rng.uniform(0.3, 1.0, p), 0.0)
        self.y = self.x @ self.truth + 0.3 * rng.standard_normal(n)
        self.lam = 0.1 * np.abs(self.x.T @ self.y).max() / n
        self.plain = np.linalg.lstsq(self.x, self.y)[0]
        x, y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        self.gram, self.moment, self.offset = x.T @ x / n, x.T @ y / n, (y @ y).item() / n / 2
        self.rate = 1 / torch.linalg.matrix_norm(self.gram, 2).item()

    def loss(self, w) -> float:
        return (w @ self.gram @ w / 2 - w @ self.moment).item() + self.offset

    def train(self, name: str, penalty: tl.Penalty, control, lam: float) -> tl.Proximal:
        cls, options, steps = OPTIMIZERS[name]
        w = nn.Parameter(torch.zeros(len(self.gram), dtype=torch.float64))
        optimizer = cls([w], **{"lr": self.rate, **options}, penalty=penalty, lam=float(lam))
        lr = optimizer.param_groups[0]["lr"]
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr * 1e-3)
        control = control(optimizer, w)
        for step in range(steps):
            self.differentiate(w)
            if step % 50 == 49 and tl.stationarity(optimizer.penalised_groups()).max < SOLVED:
                break
            optimizer.step()
            scheduler.step()
            control.step()
        self.differentiate(w)
        return optimizer

    @torch.no_grad()
    def differentiate(self, w: nn.Parameter) -> None:
        w.grad = self.gram @ w - self.moment


@pytest.fixture(scope="module")
def problem() -> LeastSquares:
    return LeastSquares()


def only(optimizer: tl.Proximal) -> nn.Parameter:
    (w,) = optimizer.param_groups[0]["params"]
    return w


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w[0] = 0.0
    return w


# --- the weights ---


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("theta", [0.01, 0.7])
def test_weights_of_elements_and_of_groups(theta, q):
    cases = [
        (tl.Elements(), numbers(5, 4), lambda w: w.abs()),
        (tl.Rows(), numbers(5, 4), lambda w: w.norm(dim=1)),
        (tl.Columns(), numbers(5, 4), lambda w: w.norm(dim=0)),
        (tl.Filters(), numbers(6, 3, 2, 2), lambda w: w.flatten(1).norm(dim=1)),
        (tl.Chunks(n=2), numbers(5, 4), lambda w: w.reshape(-1, 2).norm(dim=1)),
    ]
    ws = [nn.Parameter(w) for _, w, _ in cases]
    groups = [{"params": [w], "penalty": tl.L1(over=over)} for w, (over, _, _) in zip(ws, cases, strict=True)]
    optimizer = tl.ProxSGD(groups, lr=0.1, lam=0.3)
    control = tl.Reweighted(optimizer, theta=theta, q=q)
    for step in range(3):
        for w, (_, _, magnitude) in zip(ws, cases, strict=True):
            r = magnitude(w.detach())
            torch.testing.assert_close(optimizer.weights[w], (theta / (r + theta)) ** q, rtol=1e-12, atol=0)
            assert not optimizer.weights[w].requires_grad
            w.grad = numbers(*w.shape, seed=step + 1)
        optimizer.step()
        control.step()
    assert optimizer.weights[ws[0]].max() <= 1
    assert any((optimizer.weights[w] == 1).any() for w in ws), "a zero has all of λ"
    assert control.lam == [0.3] * len(cases)


def test_only_penalised_parameters_have_weights():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Filters()), lam=0.1))
    tl.Reweighted(optimizer)
    assert {id(p) for p in optimizer.weights} == {id(model[0].weight), id(model[2].weight)}
    assert [tuple(optimizer.weights[p].shape) for p in (model[0].weight, model[2].weight)] == [(4,), (2,)]


def test_a_reference_holds_once_and_for_all():
    one, other = nn.Parameter(numbers(4, 3)), nn.Parameter(numbers(4, 3, seed=1))
    trained = nn.Parameter(numbers(4, 3, seed=2).float())
    optimizer = tl.ProxSGD([one, other], lr=0.1, penalty=tl.L1(), lam=0.3)
    control = tl.Reweighted(optimizer, theta=0.1, q=2.0, reference={one: trained})
    assert list(map(id, optimizer.weights)) == [id(one)], "without an entry there are no weights"
    expected = (0.1 / (trained.detach().double().abs() + 0.1)) ** 2
    for step in range(3):
        torch.testing.assert_close(optimizer.weights[one], expected)
        for w in (one, other):
            w.grad = numbers(4, 3, seed=step)
        optimizer.step()
        control.step()
        trained.data.mul_(2.0)
    assert other not in optimizer.weights
    assert not optimizer.weights[one].requires_grad


def test_of_two_models():
    ours, theirs = (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)) for _ in range(2))
    optimizer = tl.ProxAdam(tl.param_groups(ours, tl.L1(), lam=0.1))
    tl.Reweighted(optimizer, reference=dict(zip(ours.parameters(), theirs.parameters(), strict=True)))
    for layer, other in ((ours[0], theirs[0]), (ours[2], theirs[2])):
        torch.testing.assert_close(optimizer.weights[layer.weight], 0.05 / (other.weight.detach().abs() + 0.05))


# --- solutions ---


@EACH
@pytest.mark.parametrize("q", [1.0, 2.0])
def test_with_a_reference_it_is_the_adaptive_lasso(problem, name, q):
    theta, lam = 0.1, problem.lam
    reference = torch.from_numpy(problem.plain)
    optimizer = problem.train(
        name, tl.L1(), lambda optimizer, w: tl.Reweighted(optimizer, theta, q, reference={w: reference}), lam
    )
    w = only(optimizer).detach()
    weights = (theta / (np.abs(problem.plain) + theta)) ** q
    # the lasso of u with columns x_j/v_j, w_j = u_j/v_j, has the penalty λ Σ v_j |w_j|
    solver = Lasso(lam, fit_intercept=False, tol=1e-14, max_iter=10**6)
    expected = torch.from_numpy(solver.fit(problem.x / weights, problem.y).coef_ / weights)

    def objective(w) -> float:
        return problem.loss(w) + lam * (torch.from_numpy(weights) * w.abs()).sum().item()

    assert abs(objective(w) - objective(expected)) <= 1e-6 * objective(expected)
    assert torch.equal(w != 0, expected != 0)
    assert 3 < (w != 0).sum() < len(w) - 3
    assert tl.stationarity(optimizer.penalised_groups()).max < 1e-4
    plain = torch.from_numpy(Lasso(lam, fit_intercept=False, tol=1e-12).fit(problem.x, problem.y).coef_)
    truth = torch.from_numpy(problem.truth)
    assert (w - truth).norm() < 0.5 * (plain - truth).norm(), "the bias of large weights is gone"


@pytest.mark.slow
@EACH
@pytest.mark.parametrize(("over", "strength"), [(tl.Elements(), 1.0), (tl.Chunks(n=4), 4.0)], ids=str)
def test_its_fixed_points_are_stationary_for_the_log_sum_penalty(problem, name, over, strength):
    theta, lam = 0.2, strength * problem.lam
    optimizer = problem.train(name, tl.L1(over=over), lambda optimizer, w: tl.Reweighted(optimizer, theta), lam)
    w = only(optimizer)
    log_sum = tl.LogSum(theta=theta, over=over)
    assert log_sum.subdiff_distance(w.detach(), w.grad, lam).max() < 1e-4 * lam
    assert tl.L1(over=over).subdiff_distance(w.detach(), w.grad, lam).max() > 0.1 * lam
    assert tl.stationarity(optimizer.penalised_groups()).max < 1e-4
    assert 0 < log_sum.support(w).sum() < len(log_sum.support(w))


@pytest.mark.slow
def test_large_theta_is_the_plain_penalty_and_small_theta_hardly_any(problem):
    def solution(theta: float) -> torch.Tensor:
        return only(problem.train("ProxSGD", tl.L1(), lambda o, w: tl.Reweighted(o, theta), problem.lam)).detach()

    def unchanged(optimizer: tl.Proximal, w: torch.Tensor) -> tl.LambdaController:
        return tl.Warmup(optimizer, steps=1, shape=lambda done: 1.0)

    plain = only(problem.train("ProxSGD", tl.L1(), unchanged, problem.lam)).detach()
    torch.testing.assert_close(solution(1e9), plain, rtol=1e-5, atol=1e-7)
    small = solution(1e-3)
    kept = small != 0
    # with a θ far below the weights, the remaining weights hardly shrink: least squares on the support
    alone = torch.linalg.lstsq(torch.from_numpy(problem.x)[:, kept], torch.from_numpy(problem.y)).solution
    torch.testing.assert_close(small[kept], alone, rtol=0, atol=0.02)
    assert (plain[kept] - alone).abs().max() > 0.1


# --- refusals ---


def one_line(message: str) -> str:
    assert "\n" not in message
    assert len(message) < 160
    return message


def test_a_penalty_without_magnitudes_is_refused():
    w = nn.Parameter(torch.ones(3, 2))
    for cls in (tl.ProxSGD, tl.ProxAdam):
        optimizer = cls([w], lr=0.1, penalty=tl.SparseGroup(over=tl.Rows()), lam=0.1)
        with pytest.raises(
            ValueError, match=r"Reweighted: SparseGroup.* has no magnitudes to take weights from"
        ) as error:
            tl.Reweighted(optimizer)
        one_line(str(error.value))
        assert not optimizer.weights


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["theta", "q"])
def test_theta_and_q_are_finite_and_above_zero(name, value):
    optimizer = tl.ProxSGD([nn.Parameter(torch.ones(2))], lr=0.1, penalty=tl.L1(), lam=0.1)
    with pytest.raises(
        ValueError, match=rf"^Reweighted: {name} must be a finite number above 0; got {value}$"
    ) as error:
        tl.Reweighted(optimizer, **{name: value})
    one_line(str(error.value))
    assert not optimizer.weights


@pytest.mark.parametrize("shape", [(2, 3), (6,), (3, 1), ()])
def test_a_reference_has_the_shape_of_its_parameter(shape):
    good, bad = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, 2))
    optimizer = tl.ProxSGD([good, bad], lr=0.1, penalty=tl.L1(), lam=0.1)
    with pytest.raises(ValueError, match=r"Reweighted: a reference is of shape .*, its parameter \(3, 2\)") as error:
        tl.Reweighted(optimizer, reference={good: torch.ones(2), bad: torch.ones(shape)})
    assert str(shape) in one_line(str(error.value))
    assert not optimizer.weights
