"""Cases in which the step after ``shrink_`` is unchanged, and cases in which it is not: both sides of the promise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl

X = torch.randn(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X[:, :2].sin()
DEAD = [1, 4]
LAM, LR = 0.01, 0.05
OPTIMIZERS = {"sgd": (tl.ProxSGD, {}), "momentum": (tl.ProxSGD, {"momentum": 0.9}), "adam": (tl.ProxAdam, {})}


def network(act: type[nn.Module] = nn.ReLU, *, bias: float = 0.0, read: bool = True) -> nn.Sequential:
    """A network with units that are the same for all inputs, and which live units read or do not."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), act(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        net[0].weight[DEAD], net[0].bias[DEAD] = 0, bias
        if not read:
            net[2].weight[:, DEAD] = 0
    return net


def step(net: nn.Module, optimizer: tl.Proximal) -> float:
    optimizer.zero_grad()
    loss = (net(X) - Y).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def twins(net: nn.Module, penalty: tl.Penalty, name: str) -> tuple[tuple, tuple]:
    """The full model and the one that is made smaller, each with its optimizer."""
    cls, options = OPTIMIZERS[name]
    pairs = []
    for model in (net, copy.deepcopy(net)):
        pairs.append((model, cls(tl.param_groups(model, penalty, lam=LAM), lr=LR, **options)))
    report = tl.shrink_(*pairs[1], X[:2])
    assert report.removed == len(DEAD)
    return pairs[0], pairs[1]


def losses(pair: tuple, steps: int = 5) -> list[float]:
    return [step(*pair) for _ in range(steps)]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("read", [True, False])
def test_of_single_weights_it_is_the_same_where_the_unit_is_zero_and_has_no_gradient(name, read):
    full, small = twins(network(read=read), tl.L1(), name)
    assert losses(small) == pytest.approx(losses(full), rel=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("over", [tl.Rows(), tl.Filters(), tl.Rows(weighted=False)], ids=str)
def test_blocks_step_the_same_if_their_removed_weights_are_zero(name, over):
    full, small = twins(network(read=False), tl.L1(over=over), name)
    assert losses(small) == pytest.approx(losses(full), rel=1e-10)


@pytest.mark.parametrize("over", [tl.Columns(), tl.InputChannels()], ids=str)
def test_blocks_of_weights_that_read_a_unit_are_removed_as_a_whole(over):
    net = network()
    rules = [tl.Rule("2.*", tl.L1(over=over)), tl.Rule("*", tl.L1())]
    pairs = [(m, tl.ProxAdam(tl.param_groups(m, rules, lam=LAM), lr=LR)) for m in (net, copy.deepcopy(net))]
    tl.shrink_(*pairs[1], X[:2])
    assert losses(pairs[1]) == pytest.approx(losses(pairs[0]), rel=1e-10)


def test_blocks_with_weights_that_read_removed_units_step_with_the_remaining_norm():
    net = network()
    full, small = twins(net, tl.L1(over=tl.Rows()), "sgd")
    stay = [i for i in range(8) if i not in DEAD]
    before = full[0][2].weight.detach().clone()
    for pair in (full, small):
        step(*pair)
    gradient = full[0][2].weight.grad
    assert not gradient[:, DEAD].any()
    threshold = LR * LAM * 8**0.5  # λ depends on the old size of the rows
    moved = before - LR * gradient
    whole = moved * (1 - threshold / moved.norm(dim=1, keepdim=True))
    left = moved[:, stay] * (1 - threshold / moved[:, stay].norm(dim=1, keepdim=True))
    torch.testing.assert_close(full[0][2].weight.detach(), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(small[0][2].weight.detach(), left, rtol=1e-12, atol=0)
    assert (left.abs() < whole[:, stay].abs()).all(), "a block that lost norm shrinks faster"


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_units_with_a_gradient_or_a_learnt_constant_take_part_in_the_step(bias):
    # tanh has a slope at 0, and a weight that reads a constant other than 0 learns like a bias
    full, small = twins(network(nn.Tanh, bias=bias), tl.L1(), "sgd")
    ours, theirs = losses(small), losses(full)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12), "the outputs are the same before the next step"
    assert ours[1] != pytest.approx(theirs[1], rel=1e-10)
    woken = full[0][0].weight[DEAD].abs().sum() > 0
    assert woken or bias
