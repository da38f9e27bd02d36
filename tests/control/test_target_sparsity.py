"""TargetSparsity: training ends with the requested share of zeros from any initial λ."""

import itertools
import math

import pytest

import torchlasso as tl
from tests.support.optimizers import batch, network
from tests.support.pairwise import pairwise

WEIGHTS = 64 * 32 + 32 * 10
# optimizer -> target -> about the fixed λ at which training ends there
RIGHT = {
    "ProxAdam": {0.5: 1e-3, 0.8: 6e-3, 0.9: 1.5e-2, 0.99: 5e-2},
    "ProxSGD": {0.5: 1e-3, 0.8: 5e-3, 0.9: 1.1e-2, 0.99: 4.5e-2},
}
LAYERS = [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1())]


# --- the share is met ---


@pytest.mark.slow
@pairwise(name=RIGHT, target=[0.5, 0.9, 0.99], start=[0.1, 10])  # the ends of the range, and between
def test_the_share_is_met_from_far_away(digits, name, target, start):
    near = max(1e-3, 5 / WEIGHTS)  # of the 23 weights that 99 % leaves, the noise of the last batches decides on a few
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, target, steps=400, tolerance=near),
        name=name,
        lam=start * RIGHT[name][target],
        steps=400,
    )
    assert abs(trained.sparsity - target) <= near
    assert trained.control.left == [pytest.approx(1 - trained.sparsity)]
    assert min(trained.kept) > 0


@pytest.mark.parametrize("name", RIGHT)
def test_from_the_right_lam_it_costs_no_accuracy(digits, name):
    lam = RIGHT[name][0.8]
    fixed = digits.train(lambda optimizer: tl.Warmup(optimizer, steps=150), name=name, lam=lam, steps=300)
    steered = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, 0.8, steps=300, tolerance=0.01), name=name, lam=lam, steps=300
    )
    assert steered.sparsity == pytest.approx(0.8, abs=0.01)
    assert steered.accuracy > fixed.accuracy - 0.02 > 0.9


@pytest.mark.parametrize("warmup", [0.0, 0.2, 1.0])
def test_lam_rises_over_the_share_of_training_that_warmup_says(digits, warmup):
    steps = 300
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, 0.8, steps=steps, warmup=warmup, tolerance=1.0),
        lam=RIGHT["ProxAdam"][0.8],
        steps=steps,
    )
    # after subtracting the line, the residual changes little from step to step
    lines = [min(1.0, step / (warmup * steps)) if warmup else 1.0 for step in range(1, steps + 1)]
    strengths = [math.log(lam / line) for (lam,), line in zip(trained.lams, lines, strict=True)]
    assert abs(strengths[0] - math.log(RIGHT["ProxAdam"][0.8])) < 0.1
    assert max(abs(after - before) for before, after in itertools.pairwise(strengths)) < 0.1


# --- the weights that the share counts ---


@pytest.mark.parametrize(
    ("target", "wanted"), [(0.8, [0.8, 0.8]), ([0.9, 0.5], [0.9, 0.5]), ((0.6, 0.7), [0.6, 0.7])], ids=str
)
def test_in_the_scope_of_groups_each_meets_its_own(digits, target, wanted):
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, target, steps=300, scope="group", tolerance=0.02),
        lam=3e-3,
        steps=300,
        penalty=LAYERS,
    )
    assert trained.sparsities == pytest.approx(wanted, abs=0.02)
    assert trained.control.left == [pytest.approx(1 - found) for found in trained.sparsities]
    ratios = [large / small for large, small in trained.lams]
    assert max(ratios) > 1.05 * min(ratios), "each has its own λ"


def test_in_the_scope_of_a_model_all_count_together(digits):
    rules = [LAYERS[0], tl.Rule("2.*", tl.L1(), scale=0.1)]
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, 0.8, steps=400, tolerance=0.02),
        lam=3e-3,
        steps=400,
        penalty=rules,
    )
    assert trained.sparsity == pytest.approx(0.8, abs=0.02)
    assert trained.sparsities[0] > 0.8 > trained.sparsities[1] + 0.1
    assert all(small == pytest.approx(0.1 * large) for large, small in trained.lams)


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_of_whole_rows(digits, name):
    trained = digits.train(
        lambda optimizer: tl.TargetSparsity(optimizer, 0.5, steps=500, tolerance=0.02),
        name=name,
        lam=3e-4,
        steps=500,
        hidden=96,
        penalty=[tl.Rule("0.*", tl.L1(over=tl.Rows()))],
    )
    alive = (trained.weights[0] != 0).any(dim=1)
    assert 1 - alive.double().mean() == pytest.approx(0.5, abs=0.02)
    assert trained.sparsity >= 1 - alive.double().mean()  # single weights of live rows underflow
    assert 0 < alive.sum() < 96
    assert trained.accuracy > 0.9


# --- with gradient accumulation ---


def accumulated(parts: int, steps: int = 60) -> tuple[list[float], list[list[float]]]:
    """Return λ and the remaining weights after each step, with the gradient summed over parts of the batch."""
    model = network().double()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.02), lr=0.02)
    control = tl.TargetSparsity(optimizer, 0.6, steps=steps, tolerance=1.0)
    lams, left = [], []
    for step in range(steps):
        optimizer.zero_grad()
        for x, y in zip(*(t.double().chunk(parts) for t in batch(step)), strict=True):
            ((model(x) - y).square().mean() / parts).backward()
        optimizer.step()
        control.step()
        lams += control.lam
        left.append(control.left)
    return lams, left


def test_it_is_called_once_for_each_step_of_the_optimizer():
    whole, halves = accumulated(1), accumulated(2)
    assert halves[0] == pytest.approx(whole[0], rel=1e-9)
    assert halves[1] == whole[1]
    assert 0 < whole[1][-1][0] < 1
