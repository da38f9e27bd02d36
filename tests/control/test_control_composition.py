"""Several controllers of one optimizer: λ is its initial value times the factor of each, in any order."""

import itertools
import math

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.optimizers import backward, network

STEPS = 24
RULES = [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1(over=tl.Rows()), scale=0.25)]
CONTROLS = {
    "warmup": lambda optimizer: tl.Warmup(optimizer, steps=10),
    "waves": lambda optimizer: tl.Warmup(optimizer, steps=STEPS, shape=lambda done: 1 + 0.5 * math.sin(9 * done)),
    "reweighted": lambda optimizer: tl.Reweighted(optimizer, theta=0.1),
    "target": lambda optimizer: tl.TargetSparsity(optimizer, 0.5, steps=STEPS, warmup=0.25, tolerance=1.0),
    "constant": lambda optimizer: tl.Warmup(optimizer, steps=STEPS, shape=lambda done: 1.0),
}


class Halved(tl.LambdaController):
    """A user's controller that halves λ at every step."""

    def _control(self) -> None:
        for group, _ in self._groups():
            self._write(group, 0.5**self.done)


def optimizer_of(model: nn.Module, lam: float = 0.02) -> tl.Proximal:
    return tl.ProxAdam(tl.param_groups(model, RULES, lam=lam), lr=0.02)


def train(model: nn.Module, optimizer: tl.Proximal, controls, steps=range(STEPS)) -> list[list[float]]:
    """λ of each penalised group after every step."""
    found = []
    for step in steps:
        backward(model, step)
        optimizer.step()
        for control in controls:
            control.step()
        found.append([group["lam"] for group in optimizer.penalised_groups()])
    return found


def trained(names, order=None) -> tuple[list[list[float]], torch.Tensor]:
    model = network()
    optimizer = optimizer_of(model)
    made = {name: CONTROLS[name](optimizer) for name in names}
    found = train(model, optimizer, [made[name] for name in order or names])
    return found, torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_schedules_multiply():
    optimizer = optimizer_of(network())
    first, second, third = CONTROLS["warmup"](optimizer), CONTROLS["waves"](optimizer), Halved(optimizer)
    for step in range(STEPS + 3):
        factor = min(1, step / 10) * (1 + 0.5 * math.sin(9 * min(1, step / STEPS))) * 0.5**step
        assert first.lam == second.lam == third.lam == pytest.approx([0.02 * factor, 0.005 * factor])
        for control in (first, second, third):
            control.step()


def test_only_controllers_that_are_stepped_change():
    optimizer = optimizer_of(network())
    first, second = (tl.Warmup(optimizer, steps=4) for _ in range(2))
    for _ in range(4):
        first.step()
    assert second.lam == [0.0, 0.0]
    second.step()
    assert second.lam == pytest.approx([0.005, 0.00125])


@pytest.mark.parametrize("names", list(itertools.permutations(["warmup", "target", "reweighted"])))
def test_the_order_of_construction_is_nothing_to_the_result(names):
    expected, weights = trained(["target", "warmup", "reweighted"])
    found, others = trained(names, order=["target", "warmup", "reweighted"])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)
    torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-6)
    assert torch.equal(others == 0, weights == 0)
    assert (weights == 0).any()


def test_constant_among_others_changes_nothing():
    with_it, alone = trained(["constant", "target", "warmup"]), trained(["target", "warmup"])
    assert with_it[0] == alone[0]
    assert torch.equal(with_it[1], alone[1])


@pytest.mark.parametrize("names", [["warmup"], ["target"], ["target", "warmup", "reweighted"]])
def test_a_group_of_another_strength_keeps_it(names):
    found, _ = trained(names)
    assert all(small == pytest.approx(0.25 * large) for large, small in found)
    assert len({large for large, _ in found}) > 5


def test_a_target_accounts_for_the_factors_of_others():
    # λ is 0 for a while at the start: there is nothing to be steered then
    optimizer = optimizer_of(network())
    target = CONTROLS["target"](optimizer)
    other = tl.Warmup(optimizer, steps=STEPS, shape=lambda done: float(done > 0.5))
    for _ in range(STEPS // 2):
        target.step()
        other.step()
    assert target.strengths == [0.0]
    assert target.lam == [0.0, 0.0]


def test_a_group_that_is_added_later_is_controlled_from_the_next_step_on():
    model = network()
    optimizer = optimizer_of(model)
    late = nn.Parameter(torch.full((6,), 0.5))
    controls = [tl.Warmup(optimizer, steps=8), Halved(optimizer), tl.Reweighted(optimizer, theta=0.5)]
    train(model, optimizer, controls, range(4))
    optimizer.add_param_group({"params": [late], "penalty": tl.L1(), "lam": 0.4})
    assert controls[0].lam[2] == 0.4
    assert late not in optimizer.weights
    late.grad = torch.zeros(6)
    (lams,) = train(model, optimizer, controls, range(4, 5))
    factor = 5 / 8 * 0.5**5
    assert lams == pytest.approx([0.02 * factor, 0.005 * factor, 0.4 * factor])
    torch.testing.assert_close(optimizer.weights[late], 0.5 / (late.detach().abs() + 0.5))


def test_a_controller_created_in_mid_training_multiplies_the_present_lam():
    model = network()
    optimizer = optimizer_of(model)
    first = tl.Warmup(optimizer, steps=4)
    train(model, optimizer, [first], range(2))
    second = tl.Warmup(optimizer, steps=2)
    assert second.lam == [0.0, 0.0]
    assert train(model, optimizer, [first, second], range(2, 4)) == [
        pytest.approx([0.02 * 3 / 4 / 2, 0.005 * 3 / 4 / 2]),
        pytest.approx([0.02, 0.005]),
    ]


def test_two_optimizers_are_controlled_apart():
    one, other = optimizer_of(network()), optimizer_of(network(), lam=0.08)
    controls = tl.Warmup(one, steps=4), tl.Warmup(other, steps=2)
    controls[1].step()
    assert controls[0].lam == [0.0, 0.0]
    assert controls[1].lam == pytest.approx([0.04, 0.01])


def test_a_state_from_before_there_were_controllers_is_a_start():
    # as from a training that was not controlled: λ is the file's, the factors are there again after a step
    model = network()
    optimizer = optimizer_of(model)
    train(model, optimizer, [], range(6))
    for names in (["warmup"], ["target"], ["target", "warmup", "reweighted"]):
        fresh = network()
        other = optimizer_of(fresh, lam=0.5)
        controls = [CONTROLS[name](other) for name in names]
        fresh.load_state_dict(model.state_dict())
        other.load_state_dict(optimizer.state_dict())
        found = train(fresh, other, controls, range(3))
        assert all(0 < large < 0.1 for large, _ in found)
        assert all(small == pytest.approx(0.25 * large) for large, small in found)


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_two_targets_at_once_are_refused(form):
    model = network()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.02), lr=0.02, form=form)
    targets = [tl.TargetSparsity(optimizer, 0.5, steps=STEPS), tl.TargetCount(optimizer, blocks=9, steps=STEPS)]
    with pytest.raises(ValueError, match=r"^TargetSparsity\(.*\) and TargetCount\(.*\) steer the λ of one optimizer"):
        train(model, optimizer, targets)


def test_a_target_may_follow_another():
    model = network()
    optimizer = optimizer_of(model)
    train(model, optimizer, [CONTROLS["target"](optimizer)], range(STEPS // 2))  # given up half-way
    train(model, optimizer, [CONTROLS["target"](optimizer)])
    second = CONTROLS["target"](optimizer)
    train(model, optimizer, [second])
    third = tl.TargetSparsity(optimizer, 0.75, steps=STEPS, tolerance=1.0)
    train(model, optimizer, [second, third])  # the second has no more steps to steer in
