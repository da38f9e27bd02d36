"""Targets, holds and schedules in the latent form: exact, in any number of steps."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.pairwise import pairwise
from torchlasso.control.root import solve
from torchlasso.optim.latents import latent_weights, scale_thresholds
from torchlasso.training.schedules import SCHEDULES, rate


def problem(wide: int = 64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    y = (x[:, :3].sum(dim=1) > 0).long() + 2 * (x[:, 3] > 0.5).long()
    layers = nn.Linear(20, wide), nn.ReLU(), nn.Linear(wide, wide // 2), nn.ReLU(), nn.Linear(wide // 2, 4)
    return nn.Sequential(*layers), x, y


def train(model, x, y, optimizer, controls, steps: range, total: int) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate("wsd", step, total, warmup=0.05)
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:64]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        for control in controls:
            control.step()


def zeros(model: nn.Module) -> tuple[int, int]:
    weights = [p for p in model.parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)


def error(model, x, y) -> float:
    return float((model(x).argmax(dim=1) != y).float().mean())


# --- a target is met exactly ---


@pairwise(steps=[80, 133], target=[0.5, 0.97], theta=[None, 0.02])
def test_the_target_is_met_to_the_weight_and_the_network_lives(steps, target, theta):
    model, x, y = problem()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=1e-2, form="latent")
    hold = tl.Hold(optimizer, steps, 0.25)
    control = tl.TargetSparsity(optimizer, target, steps=hold.start)
    more = [] if theta is None else [tl.Reweighted(optimizer, theta=theta)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, x, y, optimizer, [control, hold, *more], range(steps), steps)
    found, of = zeros(model)
    assert abs(found - target * of) <= 1
    if theta is not None:
        assert error(model, x, y) < 0.2


def test_the_order_of_hold_and_target_does_not_matter():
    results = []
    for swapped in (False, True):
        model, x, y = problem()
        optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=1e-2, form="latent")
        hold = tl.Hold(optimizer, 100, 0.3)
        controls = [tl.TargetSparsity(optimizer, 0.9, steps=hold.start), hold]
        train(model, x, y, optimizer, controls[::-1] if swapped else controls, range(100), 100)
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(map(torch.equal, *results))


def test_each_group_meets_its_own_target():
    model, x, y = problem()
    rules = [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1(), scale=2.0), tl.Rule("*", tl.L1(), scale=0.5)]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.05), lr=1e-2, form="latent")
    control = tl.TargetSparsity(optimizer, [0.9, 0.8, 0.5], steps=100, scope="group")
    train(model, x, y, optimizer, [control], range(100), 100)
    shares = [float((model[i].weight == 0).float().mean()) for i in (0, 2, 4)]
    assert shares == pytest.approx([0.9, 0.8, 0.5], abs=0.005)


def test_a_layer_that_would_become_empty_keeps_a_weight():
    model, x, y = problem()
    rules = [tl.Rule("4.*", tl.L1(), scale=1e4), tl.Rule("*", tl.L1())]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.05), lr=1e-2, form="latent")
    control = tl.TargetSparsity(optimizer, 0.95, steps=100)
    train(model, x, y, optimizer, [control], range(100), 100)
    found, of = zeros(model)
    assert abs(found - 0.95 * of) <= 2
    assert 0 < model[4].weight.count_nonzero() < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "units"])
def test_a_budget_is_met(kind):
    model, x, y = problem(256)
    rows = [tl.Rule("4.weight", None), tl.Rule("*", tl.L1(over=tl.Rows()))]
    rules = rows if kind == "rows" else tl.L1(over=tl.Units(model, x[:2]))
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.05), lr=1e-2, form="latent")
    control = tl.TargetBudget(optimizer, model, x[:8], flops=0.3, steps=50)
    train(model, x, y, optimizer, [control, tl.Reweighted(optimizer, theta=0.1)], range(50), 50)
    assert 0.29 < control.left[0] <= 0.3
    assert error(model, x, y) < 0.3


def test_a_budget_that_was_missed_downwards_is_met_by_units_that_come_back():
    model, x, y = problem(256)
    optimizer = tl.ProxAdam(
        tl.param_groups(model, tl.L1(over=tl.Units(model, x[:2])), lam=0.05), lr=1e-2, form="latent"
    )
    control = tl.TargetBudget(optimizer, model, x[:8], flops=0.3, steps=50)
    train(model, x, y, optimizer, [control], range(30), 50)
    (group,) = [group for group, _, _ in control.steered()]
    scale_thresholds(optimizer, group, [1.5] * len(group["params"]))
    control.steps = 30
    assert control.left[0] < 0.28
    control._search.land()
    assert 0.29 < control.left[0] <= 0.3


@pytest.mark.parametrize("theta", [None, 0.1])
def test_a_layer_of_units_that_would_become_empty_keeps_few_and_the_others_make_up_for_it(theta):
    model, x, y = problem(128)
    with torch.no_grad():
        model[2].weight.mul_(1e-2)  # its units would all go first
    optimizer = tl.ProxAdam(
        tl.param_groups(model, tl.L1(over=tl.Units(model, x[:2])), lam=0.05), lr=1e-5, form="latent"
    )
    control = tl.TargetBudget(optimizer, model, x[:8], parameters=0.2, steps=20)
    more = [] if theta is None else [tl.Reweighted(optimizer, theta=theta)]
    train(model, x, y, optimizer, [control, *more], range(20), 20)
    assert 0.18 < control.left[0] <= 0.2
    units = [int(layer.weight.any(dim=1).sum()) for layer in (model[0], model[2])]
    assert 1 <= units[1] <= 16 < units[0] < 128


@pytest.mark.slow
def test_a_search_resumes_to_the_bit():
    def start():
        model, x, y = problem()
        optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=1e-2, form="latent")
        hold = tl.Hold(optimizer, 60)
        controls = [tl.TargetSparsity(optimizer, 0.9, steps=hold.start), tl.Reweighted(optimizer, theta=0.02), hold]
        return model, x, y, optimizer, controls

    for cut in (24, 45, 46, 54):
        model, x, y, optimizer, controls = start()
        train(model, x, y, optimizer, controls, range(cut), 60)
        kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [c.state_dict() for c in controls]))
        train(model, x, y, optimizer, controls, range(cut, 60), 60)
        again, x, y, resumed, others = start()
        again.load_state_dict(kept[0])
        resumed.load_state_dict(kept[1])
        for control, state in zip(others, kept[2], strict=True):
            control.load_state_dict(state)
        train(again, x, y, resumed, others, range(cut, 60), 60)
        assert all(map(torch.equal, model.parameters(), again.parameters()))


@pytest.mark.parametrize("lam", [1e-6, 1e-2, 1e3])
def test_the_given_lam_may_be_far_too_large_or_small(lam):
    """The first step would make a λ of 1e3 all weights zero, for good: thresholds never fall."""
    model, x, y = problem()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=lam), lr=1e-2, form="latent")
    control = tl.TargetSparsity(optimizer, 0.8, steps=100)
    seen = []
    for step in range(100):
        train(model, x, y, optimizer, [control], range(step, step + 1), 100)
        seen.append(control.left[0])
    assert min(seen) > 0.15
    assert abs(seen[-1] - 0.2) < 0.01
    assert error(model, x, y) < 0.2


def test_a_target_that_zeros_do_not_come_back_to_says_so():
    model, x, y = problem()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.zero_()  # behind a ReLU both have no gradient
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-3), lr=1e-2, form="latent")
    control = tl.TargetSparsity(optimizer, 0.05, steps=20)
    with pytest.warns(tl.TargetMissed, match="that were zero did not come back"):
        train(model, x, y, optimizer, [control], range(20), 20)


def test_groups_of_two_forms_are_refused():
    model, *_ = problem()
    groups = tl.param_groups(model, [tl.Rule("0.*", tl.L1()), tl.Rule("*", tl.L1())], lam=1e-3)
    groups[0]["form"] = "latent"
    optimizer = tl.ProxAdam(groups, lr=1e-2)
    with pytest.raises(ValueError, match="forms latent and proximal"):
        tl.TargetSparsity(optimizer, 0.9, steps=100)


# --- latent weights under other thresholds ---


@pytest.mark.parametrize("theta", [None, 0.1])
@pytest.mark.parametrize("penalty", [tl.L1(), tl.L1(over=tl.Rows())], ids=["single", "rows"])
def test_latent_weights_are_those_of_the_next_step(penalty, theta):
    """Where the next update moves nothing, they are what the step gives, and a factor is that of all thresholds."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(6, 4, dtype=torch.float64))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=penalty, lam=0.5, form="latent")
    control = None if theta is None else tl.Reweighted(optimizer, theta=theta)
    for _ in range(3):
        w.grad = 0.1 * torch.randn_like(w)
        optimizer.step()
        if control is not None:
            control.step()
    group = optimizer.param_groups[0]
    (same,) = latent_weights(optimizer, group)
    assert torch.equal(same, w.detach())
    (expected,) = latent_weights(optimizer, group, lam=0.5)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    torch.testing.assert_close(w.detach(), expected)
    (expected,) = latent_weights(optimizer, group, [2.0])
    scale_thresholds(optimizer, group, [2.0])
    assert torch.equal(w.detach(), expected)
    assert not torch.equal(w.detach(), same)


def test_the_root_is_found_and_an_impossible_one_leaves_the_start():
    calls = []

    def left(factors):
        calls.append(factors)
        return [1 / (1 + factors[0]), max(0.3, 1 - factors[1]), float("nan")]

    found = solve(left, [0.2, 0.1, 0.5], [1.0, 0.7, 1.0])
    assert found[0] == pytest.approx(4.0, rel=1e-6)
    assert found[1:] == [0.7, 0.0]
    calls.clear()
    assert solve(left, [0.2, 0.9, 0.5], [3.9, 0.1, 1.0], near=0.01)[0] == pytest.approx(4.0, rel=0.02)
    assert len(calls) < 12


# --- schedules and holds ---


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_over_the_warmup_and_end_where_they_should(schedule):
    rates = [rate(schedule, step, 100, warmup=0.1, decay=0.3) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) * rate(schedule, i, 100, decay=0.3) for i in range(10)])
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-9)
    if schedule == "wsd":
        assert set(rates[9:71]) == {1.0}
        assert rates[71:] == sorted(rates[71:], reverse=True)


def test_a_hold_says_what_is_wrong():
    w = nn.Parameter(torch.ones(3, 3))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(over=tl.SingularValues()), lam=0.1)
    with pytest.raises(ValueError, match="not weights"):
        tl.Hold(optimizer, 100)
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.1)
    with pytest.raises(ValueError, match=r"above 0 and below 1; got 1\.0"):
        tl.Hold(optimizer, 100, 1.0)


def test_a_hold_keeps_lambda_for_those_who_ask():
    w = nn.Parameter(torch.ones(3))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.1)
    hold = tl.Hold(optimizer, 4, 0.5)
    for _ in range(4):
        w.grad = torch.zeros(3)
        optimizer.step()
        hold.step()
    assert (hold.lam, hold.before) == ([0.0], [0.1])
    again = tl.Hold(optimizer, 4, 0.5)
    again.load_state_dict(hold.state_dict())
    assert again.before == [0.1]
