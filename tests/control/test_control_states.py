"""The states of controllers: one goes on only in a controller of its class and target."""

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.storage.checkpoint import load_state, save_state

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
MAKERS = {
    "Warmup": lambda model, optimizer: tl.Warmup(optimizer, steps=50),
    "Hold": lambda model, optimizer: tl.Hold(optimizer, steps=50),
    "Reweighted": lambda model, optimizer: tl.Reweighted(optimizer),
    "TargetSparsity": lambda model, optimizer: tl.TargetSparsity(optimizer, 0.5, steps=50),
    "TargetSparsity of groups": lambda model, optimizer: tl.TargetSparsity(optimizer, [0.5], steps=50, scope="group"),
    "TargetSparsity of blocks": lambda model, optimizer: tl.TargetSparsity(optimizer, 0.5, steps=50, count="blocks"),
    "TargetSparsity of 0.75": lambda model, optimizer: tl.TargetSparsity(optimizer, 0.75, steps=50),
    "TargetCount": lambda model, optimizer: tl.TargetCount(optimizer, units=6, steps=50),
    "TargetCount of 3": lambda model, optimizer: tl.TargetCount(optimizer, units=3, steps=50),
    "TargetBudget": lambda model, optimizer: tl.TargetBudget(optimizer, model, X, flops=0.5, steps=50),
    "TargetBudget of parameters": lambda model, optimizer: tl.TargetBudget(
        optimizer, model, X, parameters=0.5, steps=50
    ),
    "TargetBudget of 0.75": lambda model, optimizer: tl.TargetBudget(optimizer, model, X, flops=0.75, steps=50),
}


def made(name: str) -> tl.LambdaController:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 2))
    rules = [tl.Rule("0.*", tl.L1(over=tl.Rows()))]
    return MAKERS[name](model, tl.ProxAdam(tl.param_groups(model, rules, lam=1e-3), lr=0.01))


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_goes_on_in_its_own_controller_alone(name, tmp_path):
    state = made(name).state_dict()
    save_state(tmp_path / "state", state)
    made(name).load_state_dict(load_state(tmp_path / "state"))
    made(name).load_state_dict({key: value for key, value in state.items() if key != "controller"})  # of before
    for other in MAKERS.keys() - {name}:
        control = made(other)
        with pytest.raises(ValueError, match=rf"^the state is that of {name.split()[0]}.*, not of {other.split()[0]}"):
            control.load_state_dict({**state, "done": 7})
        assert control.done == 0


def test_the_error_names_both_targets():
    with pytest.raises(
        ValueError, match=r"^the state is that of TargetBudget\(flops=0\.5\), not of TargetCount\(units=6"
    ):
        made("TargetCount").load_state_dict(made("TargetBudget").state_dict())


def test_the_number_of_steps_may_be_another():
    first, second = made("TargetSparsity"), made("TargetSparsity")
    longer = tl.TargetSparsity(second.optimizer, 0.5, steps=99)
    first.done = 7
    longer.load_state_dict(first.state_dict())
    assert longer.done == 7


@pytest.mark.parametrize("state", [{}, {"lam": 1}, [1], None])
def test_what_is_no_state_is_one_line(state):
    with pytest.raises(ValueError, match=r"^Warmup: the state of a controller has the number of steps, 'done'; got"):
        made("Warmup").load_state_dict(state)


def test_the_controller_of_activations_refuses_others_too():
    coder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    term = tl.ActivationL1(coder[1], coder[2])
    control = tl.TargetL0(term, l0=3, steps=50)
    with pytest.raises(ValueError, match=r"^the state is that of Warmup, not of TargetL0\(l0=3\.0\)"):
        control.load_state_dict(made("Warmup").state_dict())
    with pytest.raises(ValueError, match=r"^the state is that of TargetL0\(l0=4\.0\), not of TargetL0\(l0=3\.0\)"):
        control.load_state_dict(tl.TargetL0(term, l0=4, steps=50).state_dict())
    control.load_state_dict(tl.TargetL0(term, l0=3, steps=99).state_dict())
