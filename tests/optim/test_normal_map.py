"""The normal-map form: the solution of the objective under optimizers that have no metric."""

import copy
import functools
import math

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.matrices import COLUMNS, ROWS, MatrixProblem
from torchlasso.optim import NoMetric

PENALTIES = {
    "elements": (tl.L1(), 0.4),
    "rows": (tl.L1(over=tl.Rows()), 0.4),
    "nuclear norm": (tl.L1(over=tl.SingularValues()), 1.5),
    "sparse group": (tl.SparseGroup(), 0.4),
    "elastic net": (tl.ElasticNet(l1_ratio=0.7), 0.4),
}
# name -> (optimizer, options, rate, whether the rate falls)
CASES = {
    "Muon": (torch.optim.Muon, {"weight_decay": 0.0}, 0.1, True),
    "Muon, like AdamW": (torch.optim.Muon, {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}, 0.1, True),
    "Rprop": (torch.optim.Rprop, {}, 0.01, False),
    "Adam": (torch.optim.Adam, {"form": "normal-map", "betas": (0.8, 0.99)}, 0.1, True),
    "SGD": (torch.optim.SGD, {"form": "normal-map", "momentum": 0.9}, 0.1, True),
}
STEPS = 400


@functools.cache
def solved(penalty: str) -> tuple[MatrixProblem, torch.Tensor]:
    """Solve the problem of a penalty once for all optimizers."""
    problem = MatrixProblem(*PENALTIES[penalty])
    return problem, problem.solution()


def trained(problem: MatrixProblem, case: str, start: float = 0.3, steps: int = STEPS) -> torch.Tensor:
    base, options, lr, falls = CASES[case]
    torch.manual_seed(0)
    w = nn.Parameter(start * torch.randn(ROWS, COLUMNS, dtype=problem.x.dtype))
    optimizer = tl.proximal(base)([w], lr=lr, penalty=problem.penalty, lam=problem.lam, **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr * 1e-4)
    for _ in range(steps):
        w.grad = problem.gradient(w.detach())
        optimizer.step()
        if falls:
            scheduler.step()
    return w.detach()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_limit_is_the_solution_of_a_reference_solver(case, penalty):
    problem, best = solved(penalty)
    w = trained(problem, case)
    assert problem.objective(w) - problem.objective(best) <= 1e-8 * problem.objective(best)
    support = problem.penalty.support(best)
    assert torch.equal(problem.penalty.support(w), support)
    assert 0 < support.sum() < support.numel()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_first_step_leaves_weights_where_they_were(penalty):
    """Latent weights start where their prox is the weights, so nothing is erased when a penalty comes to a network."""
    torch.manual_seed(0)
    w = nn.Parameter(0.05 * torch.randn(ROWS, COLUMNS, dtype=torch.float64))
    before = w.detach().clone()
    optimizer = tl.proximal(torch.optim.Muon)([w], lr=0.01, weight_decay=0.0, penalty=PENALTIES[penalty][0], lam=0.4)
    w.grad = torch.randn_like(w)
    plain = before.clone().requires_grad_()
    plain.grad = w.grad + 0.4 * torch.autograd.grad(PENALTIES[penalty][0].value(plain, 1.0), plain)[0]
    torch.optim.Muon([plain], lr=0.01, weight_decay=0.0).step()
    optimizer.step()
    moved = (plain.detach() - before).norm()
    assert 0 < (w.detach() - before).norm() <= moved * 1.001  # a prox brings no two points further apart
    assert w.count_nonzero() > 0.9 * w.numel()


def test_gradients_are_given_back_as_they_were():
    w = nn.Parameter(torch.ones(3, 3))
    optimizer = tl.proximal(torch.optim.Muon)([w], lr=0.1, penalty=tl.L1(), lam=0.5)
    grad = torch.randn(3, 3)
    for _ in range(3):
        w.grad = grad.clone()
        held = w.grad
        optimizer.step()
        assert w.grad is held
        assert torch.equal(held, grad)


@pytest.mark.parametrize("lam_scale", [1.0, 3.0])
def test_lambda_keeps_its_meaning_for_each_parameter(lam_scale):
    """A least-squares fit to a target is the soft threshold of it, also where λ has a factor."""
    target = torch.tensor([[2.0, -0.3], [0.6, -1.0]])
    w = nn.Parameter(torch.zeros(2, 2))
    optimizer = tl.proximal(torch.optim.Rprop)([w], penalty=tl.L1(), lam=0.2)
    optimizer.param_groups[0]["lam_scales"] = [lam_scale]
    for _ in range(300):
        w.grad = w.detach() - target
        optimizer.step()
    torch.testing.assert_close(w.detach(), tl.L1().prox(target, 0.2 * lam_scale, 1.0), atol=1e-5, rtol=0)


def test_a_rate_that_warms_up_from_zero():
    problem = MatrixProblem(tl.L1(over=tl.Rows()), 0.4)
    w = nn.Parameter(0.1 * torch.ones(ROWS, COLUMNS, dtype=torch.float64))
    optimizer = tl.proximal(torch.optim.Muon)([w], lr=0.1, weight_decay=0.0, penalty=problem.penalty, lam=0.4)
    rates = [0.1 * min(1, k / 50) * max(1e-4, math.cos(math.pi / 2 * k / 800)) for k in range(800)]
    for lr in rates:
        optimizer.param_groups[0]["lr"] = lr
        w.grad = problem.gradient(w.detach())
        optimizer.step()
    assert torch.equal(problem.penalty.support(w.detach()), problem.penalty.support(problem.solution()))
    assert optimizer.param_groups[0]["reach_peak"] == max(rates)


def test_the_step_agrees_with_its_reference():
    def run(name: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False))
        optimizer = tl.proximal(torch.optim.Muon)(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.05), lr=0.02)
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            getattr(optimizer, name)()
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run("step"), run("_reference_step"), strict=True))


def test_saved_and_loaded_it_goes_on_to_the_bit():
    problem = MatrixProblem(tl.L1(), 0.4)
    w = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.float64))
    optimizer = tl.proximal(torch.optim.Rprop)([w], penalty=tl.L1(), lam=0.4)

    def go_on(w, optimizer):
        for _ in range(10):
            w.grad = problem.gradient(w.detach())
            optimizer.step()

    go_on(w, optimizer)
    state, at = copy.deepcopy(optimizer.state_dict()), w.detach().clone()
    go_on(w, optimizer)
    other = nn.Parameter(at)
    second = tl.proximal(torch.optim.Rprop)([other], penalty=tl.L1(), lam=0.4)
    second.load_state_dict(state)
    go_on(other, second)
    assert torch.equal(w, other)


def test_weights_that_others_change_stay_changed():
    """The offset of latent weights is what is kept, so that they follow weights that a controller or a user writes."""
    problem = MatrixProblem(tl.L1(), 0.4)
    w = nn.Parameter(torch.full((ROWS, COLUMNS), 5.0, dtype=torch.float64))
    optimizer = tl.proximal(torch.optim.Rprop)([w], penalty=tl.L1(), lam=0.4)
    for _ in range(3):
        w.grad = problem.gradient(w.detach())
        optimizer.step()
    with torch.no_grad():
        w.zero_()
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert w.abs().max() < 0.1


def test_without_a_strength_it_is_the_plain_optimizer():
    problem = MatrixProblem(tl.L1(), 0.4)
    plain = nn.Parameter(torch.ones(ROWS, COLUMNS, dtype=torch.float64))
    w = nn.Parameter(plain.detach().clone())
    optimizers = torch.optim.Muon([plain], lr=0.1), tl.proximal(torch.optim.Muon)([w], lr=0.1, penalty=tl.L1(), lam=0)
    for _ in range(5):
        for p, optimizer in zip((plain, w), optimizers, strict=True):
            p.grad = problem.gradient(p.detach())
            optimizer.step()
    assert torch.equal(w, plain)


def test_blocks_over_several_tensors():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(64, 4)
    y = x[:, :1]
    groups = tl.param_groups(model, tl.L1(over=tl.Units(model, x)), lam=0.02)
    optimizer = tl.proximal(torch.optim.Rprop)(groups)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    dead = (model[0].weight == 0).all(dim=1)
    assert 0 < dead.sum() < 8
    assert not model[0].bias[dead].any()


def test_zeros_can_be_held():
    problem = MatrixProblem(tl.L1(), 0.4)
    w = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.float64))
    optimizer = tl.proximal(torch.optim.Muon)([w], lr=0.1, penalty=tl.L1(), lam=0.4)
    for step in range(60):
        if step == 40:
            optimizer.hold()
            zeros = w.detach() == 0
        w.grad = problem.gradient(w.detach())
        optimizer.step()
    assert 0 < zeros.sum() < zeros.numel()
    assert not w[zeros].any()


class Counting(torch.optim.Optimizer):
    """Gradient descent with a rate that falls by itself, with the number of steps among its options."""

    def __init__(self, params, lr: float = 0.5):
        super().__init__(params, {"lr": lr, "k": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                p -= group["lr"] / group["k"] ** 0.5 * p.grad


@pytest.mark.parametrize("name", ["step", "_reference_step"])
def test_numbers_that_an_optimizer_keeps_in_its_groups_are_kept(name):
    w = nn.Parameter(torch.zeros(3))
    optimizer = tl.proximal(Counting, metric=NoMetric())([w], penalty=tl.L1(), lam=0.4)
    for _ in range(7):
        w.grad = w.detach() - torch.tensor([1.0, 0.2, -0.3])
        getattr(optimizer, name)()
    assert optimizer.param_groups[0]["k"] == 7


@pytest.mark.parametrize("base", [torch.optim.Muon, torch.optim.Rprop])
@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_forms_that_need_a_metric_are_refused(base, form):
    with pytest.raises(ValueError, match=r"needs to know how far.*form='normal-map'"):
        tl.proximal(base)([nn.Parameter(torch.ones(2, 2))], penalty=tl.L1(), lam=0.1, form=form)


def test_penalties_that_are_not_convex_are_refused():
    with pytest.raises(ValueError, match="form='normal-map' needs a convex penalty, and MCP"):
        tl.proximal(torch.optim.Muon)([nn.Parameter(torch.ones(2, 2))], penalty=tl.MCP(), lam=0.1)
