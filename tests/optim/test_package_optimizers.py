"""Optimizers of other packages: the solution of a convex problem, exact zeros, and their own ways respected."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.matrices import COLUMNS, ROWS, MatrixProblem
from torchlasso.optim.metric import OF_PACKAGES


def lion(params, **options):
    import lion_pytorch

    return tl.proximal(lion_pytorch.Lion)(params, lr=0.01, **options)


def adafactor(params, **options):
    from transformers.optimization import Adafactor

    return tl.proximal(Adafactor)(params, **{"lr": 0.1, "relative_step": False, "scale_parameter": False, **options})


def schedule_free(name):
    def make(params, **options):
        import schedulefree

        return tl.proximal(getattr(schedulefree, name))(params, lr=0.1, **options)

    return make


# name -> (function that makes it, whether its rate falls, the steps that it needs)
CASES = {
    "Lion": (lion, True, 1200),
    "Adafactor of transformers": (adafactor, True, 600),
    "with its scale of the parameter": (lambda p, **o: adafactor(p, scale_parameter=True, lr=1.0, **o), True, 600),
    "with momentum": (lambda p, **o: adafactor(p, beta1=0.9, **o), True, 600),
    "schedule-free AdamW": (schedule_free("AdamWScheduleFree"), False, 1200),
    "schedule-free RAdam": (lambda p, **o: schedule_free("RAdamScheduleFree")(p, betas=(0.9, 0.99), **o), False, 600),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("penalty", [tl.L1(), tl.L1(over=tl.Rows())], ids=str)
def test_the_limit_is_the_solution_of_a_reference_solver(case, penalty):
    problem = MatrixProblem(penalty, 0.4)
    w = nn.Parameter(torch.full((ROWS, COLUMNS), 0.1, dtype=torch.float64))
    make, falls, steps = CASES[case]
    optimizer = make([w], penalty=penalty, lam=0.4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)
    if not falls:
        optimizer.train()
    for _ in range(steps):
        w.grad = problem.gradient(w.detach())
        optimizer.step()
        if falls:
            scheduler.step()
    if not falls:
        optimizer.eval()
    best = problem.solution()
    assert problem.objective(w.detach()) - problem.objective(best) <= 1e-7 * problem.objective(best)
    assert torch.equal(w != 0, best != 0)
    assert 0 < (best == 0).sum() < best.numel()


def test_the_names_are_those_of_classes():
    """Every name in the registry that is installed here is that of a class, and a misspelt one would not be found."""
    import importlib

    for name in OF_PACKAGES:
        module, _, cls = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), cls), torch.optim.Optimizer), name


@pytest.mark.slow
def test_none_of_the_packages_is_imported_before_it_is_used():
    roots = sorted({name.partition(".")[0] for name in OF_PACKAGES} - {"torch"})
    assert roots == ["lion_pytorch", "schedulefree", "torchao", "transformers"]
    code = f"import sys, torchlasso; print([name for name in {roots} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_relative_steps_are_refused():
    with pytest.raises(ValueError, match=r"relative_step=True has no rate.*relative_step=False"):
        adafactor([nn.Parameter(torch.ones(2, 2))], lr=None, relative_step=True, penalty=tl.L1(), lam=0.1)


def test_schedule_free_modes_exchange_the_weights():
    """Both modes have exact zeros, and going there and back changes nothing, to the bit."""
    problem = MatrixProblem(tl.L1(), 0.4)
    w = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.float64))
    optimizer = schedule_free("AdamWScheduleFree")([w], penalty=tl.L1(), lam=0.4, warmup_steps=20)
    optimizer.train()
    for _ in range(100):
        w.grad = problem.gradient(w.detach())
        optimizer.step()
    training = w.detach().clone()
    optimizer.eval()
    averaged = w.detach().clone()
    optimizer.eval()  # twice is once
    assert torch.equal(w, averaged)
    optimizer.train()
    optimizer.train()
    assert torch.equal(w, training)
    assert not torch.equal(training, averaged)
    for one in (training, averaged):
        assert 0 < (one == 0).sum() < one.numel()
    with pytest.raises(ValueError, match="averages weights over its steps, so their zeros cannot be held"):
        optimizer.hold()


MODES = pytest.mark.parametrize("name", ["AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"])


def schedule_free_training(name, w):
    """An optimizer of a weight, and a function that steps it."""
    problem = MatrixProblem(tl.L1(), 0.4)
    options = {"betas": (0.9, 0.9)} if name.startswith("RAdam") else {"warmup_steps": 5}
    optimizer = schedule_free(name)([w], penalty=tl.L1(), lam=0.4, **options)

    def steps(number):
        optimizer.train()
        for _ in range(number):
            w.grad = problem.gradient(w.detach())
            optimizer.step()

    return optimizer, steps


def weight():
    return nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=torch.float64))


@MODES
def test_evaluating_and_saving_change_no_later_step(name, tmp_path):
    whole, parts, resumed = weight(), weight(), weight()
    optimizer, steps = schedule_free_training(name, whole)
    steps(40)
    optimizer.eval()
    optimizer, steps = schedule_free_training(name, parts)
    for number in (1, 9, 10):
        steps(number)
        optimizer.eval()
    torch.save({"w": parts, "optimizer": optimizer.state_dict()}, tmp_path / "file")
    steps(20)
    optimizer.eval()
    assert torch.equal(whole, parts)
    loaded = torch.load(tmp_path / "file", weights_only=False)
    optimizer, steps = schedule_free_training(name, resumed)
    with torch.no_grad():
        resumed.copy_(loaded["w"])
    optimizer.load_state_dict(loaded["optimizer"])
    steps(20)
    optimizer.eval()
    assert torch.equal(whole, resumed)
    assert (whole == 0).any()
    assert whole.any()


@MODES
def test_training_goes_on_from_weights_that_were_loaded(name):
    w = weight()
    optimizer, steps = schedule_free_training(name, w)
    steps(10)
    training = w.detach().clone()
    optimizer.eval()
    with torch.no_grad():
        w[0] *= 1.5
    changed = w.detach().clone()
    optimizer.train()
    assert not torch.equal(w[0], training[0])
    torch.testing.assert_close(w[1:].detach(), training[1:], rtol=1e-9, atol=1e-12)
    optimizer.eval()
    torch.testing.assert_close(w.detach(), changed, rtol=1e-9, atol=1e-12)


def test_units_are_removed_from_averaged_weights_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(100, 4)
    groups = tl.param_groups(net, tl.L1(over=tl.Units(net, x[:2])), lam=0.03)
    optimizer = schedule_free("AdamWScheduleFree")(groups)
    optimizer.train()
    for _ in range(200):
        optimizer.zero_grad()
        (net(x)[:, 0] - x[:, 0].abs()).square().mean().backward()
        optimizer.step()
    with pytest.raises(
        ValueError, match=r"AdamWScheduleFree trains with other weights.*call optimizer.eval\(\) before"
    ):
        tl.shrink_(net, optimizer, x[:2])
    optimizer.eval()
    outputs = net(x).detach()
    tl.shrink_(net, optimizer, x[:2])
    assert net[0].out_features < 32
    torch.testing.assert_close(net(x), outputs)
    optimizer.train()
    net(x).sum().backward()
    optimizer.step()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_stable_hash_for_caching:UserWarning")  # torch's compiler, of torchao's tensors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchao registers its enums in the old way
def test_adam_in_eight_bits_reaches_the_solution():
    from torchao.optim import AdamW8bit

    torch.manual_seed(0)
    size, lam = 4096, 0.3  # the least that is kept in 8 bits
    curvature = 10 ** torch.empty(size).uniform_(-0.5, 0.5)
    target = torch.randn(size)
    solution = tl.L1().prox(target, lam, 1 / curvature)
    w = nn.Parameter(torch.zeros(size))
    optimizer = tl.proximal(AdamW8bit)([w], lr=0.03, weight_decay=0.0, penalty=tl.L1(), lam=lam)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000, eta_min=1e-5)
    for _ in range(1000):
        w.grad = curvature * (w.detach() - target)
        optimizer.step()
        scheduler.step()
    assert type(optimizer.state[w]["exp_avg"]).__name__ == "OptimState8bit"
    assert ((w != 0) != (solution != 0)).sum() <= size // 1000
    torch.testing.assert_close(w.detach(), solution, atol=3e-3, rtol=0)
    assert 0.2 < (w == 0).float().mean() < 0.8


def test_targets_of_zeros_are_refused_where_the_trained_model_has_averages():
    """A target would count the zeros of the weights in training, and the averages have fewer."""
    w = nn.Parameter(torch.zeros(8, 4))
    optimizer = schedule_free("SGDScheduleFree")([w], penalty=tl.L1(over=tl.Rows()), lam=0.1)
    for make in (lambda: tl.TargetSparsity(optimizer, 0.5, steps=9), lambda: tl.TargetCount(optimizer, 3, steps=9)):
        with pytest.raises(ValueError, match=r"SGDScheduleFree trains with other weights than the averages.*: give λ"):
            make()
