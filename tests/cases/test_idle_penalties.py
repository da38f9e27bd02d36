"""Groups with penalties in an optimizer that takes no prox: said once, and only where nothing applies them."""

from __future__ import annotations

import copy
import io
import warnings
from weakref import WeakSet

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

import torchlasso as tl
from torchlasso import idle_penalties
from torchlasso.optim.metrics import known_metrics

X = torch.ones(4, 3)
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, "ProxSGD"),
    "Adam": (torch.optim.Adam, "ProxAdam"),
    "AdamW": (torch.optim.AdamW, "ProxAdamW"),
    **{
        name: (getattr(torch.optim, name), rf"proximal\({name}\)")
        for name in ("Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop")
    },
}


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the optimizers and the loss terms of other tests, since the age of a term depends on their number."""
    monkeypatch.setattr(idle_penalties, "_terms", {})
    monkeypatch.setattr(idle_penalties, "_stepped", WeakSet())


def groups_of(model: nn.Module) -> list[dict]:
    return tl.param_groups(model, tl.L1(), lam=1e-3)


def step(model: nn.Module, optimizer, groups: list[dict] | None = None) -> None:
    optimizer.zero_grad()
    loss = model(X).square().mean()
    (loss if groups is None else loss + tl.penalty(groups)).backward()
    optimizer.step()


def told(steps) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps()
    return [str(one.message) for one in caught if "does not apply the penalties" in str(one.message)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_warning_comes_once_and_names_the_proximal_class(name):
    cls, proximal = OPTIMIZERS[name]
    model = nn.Linear(3, 2)
    optimizer = cls(groups_of(model), lr=0.1)
    with pytest.warns(
        UserWarning, match=rf"^{name} does not apply .* give the groups to torchlasso\.{proximal}, or add"
    ):
        step(model, optimizer)
    assert not told(lambda: [step(model, optimizer) for _ in range(3)])


def test_of_lbfgs_with_its_closure_too():
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.LBFGS([{"params": [w], "penalty": tl.L1(), "lam": 0.1}])
    tl.param_groups(nn.Linear(2, 2), tl.L1(), lam=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (w - 2).square().sum()
        loss.backward()
        return loss

    assert len(told(lambda: [optimizer.step(closure) for _ in range(2)])) == 1


@pytest.mark.parametrize("cls", [tl.ProxSGD, tl.ProxAdam, tl.ProxAdamW, *map(tl.proximal, known_metrics())], ids=str)
def test_a_proximal_optimizer_causes_no_warning(cls):
    model = nn.Linear(3, 2)
    optimizer = cls(groups_of(model), lr=0.01)
    assert not told(lambda: [step(model, optimizer) for _ in range(2)])


def test_a_penalty_in_the_loss_causes_no_warning():
    model = nn.Linear(3, 2)
    groups = groups_of(model)
    optimizer = torch.optim.Adam(groups, lr=0.1)
    assert not told(lambda: [step(model, optimizer, groups) for _ in range(3)])
    assert not told(lambda: [step(model, optimizer, optimizer.param_groups) for _ in range(3)])


def test_nor_after_a_resume_or_of_copied_groups_with_such_a_term():
    model = nn.Linear(3, 2)
    groups = groups_of(model)
    optimizer = torch.optim.Adam([{**group, "lr": 0.1} for group in groups])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert not told(lambda: [step(model, optimizer, groups) for _ in range(3)])


def test_a_term_of_one_model_says_nothing_of_another():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    groups = groups_of(one)
    optimizers = torch.optim.Adam(groups, lr=0.1), torch.optim.Adam(groups_of(other), lr=0.1)
    assert not told(lambda: step(one, optimizers[0], groups))
    assert len(told(lambda: step(other, optimizers[1]))) == 1


def test_groups_without_a_penalty_cause_no_warning():
    model = nn.Linear(3, 2)
    groups_of(model)
    assert not told(lambda: step(model, torch.optim.Adam(model.parameters())))
    assert not told(lambda: step(model, torch.optim.Adam([{"params": [model.weight], "penalty": None}])))
    assert not told(lambda: step(model, torch.optim.Adam([{"params": [model.weight], "penalty": "l1"}])))


def test_schedulers_and_wrappers_do_not_hide_it():
    class Wrapper(torch.optim.Optimizer):  # as accelerate makes one
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def zero_grad(self):
            self.optimizer.zero_grad()

        def step(self, closure=None):
            return self.optimizer.step(closure)

    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(groups_of(model), lr=0.1)
    StepLR(optimizer, 1)
    wrapped = Wrapper(optimizer)
    assert len(told(lambda: [step(model, wrapped) for _ in range(2)])) == 1


def test_a_step_without_gradients_says_nothing_yet():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(groups_of(model))
    assert not told(optimizer.step)
    assert len(told(lambda: step(model, optimizer))) == 1


def test_nothing_is_written_into_optimizers():
    model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    groups = groups_of(model)
    ours, plain = torch.optim.Adam(groups), torch.optim.Adam(twin.parameters())
    told(lambda: step(model, ours))
    step(twin, plain)
    assert torch.equal(model.weight, twin.weight)
    kept = ours.state_dict()
    assert {key for group in kept["param_groups"] for key in group} == {
        *plain.state_dict()["param_groups"][0],
        "penalty",
        "lam",
        "names",
    }
    torch.save(ours, io.BytesIO())
    assert not ours._optimizer_step_post_hooks


def test_a_term_that_was_looked_at_long_ago_does_not_hide_it():
    for _ in range(20):  # ids of parameters that are gone come again
        gone = nn.Linear(3, 2)
        tl.penalty(groups_of(gone))
        del gone
        for _ in range(10):
            w = nn.Parameter(torch.ones(1))
            w.grad = torch.ones(1)
            torch.optim.SGD([w]).step()
        model = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(groups_of(model))
        assert len(told(lambda m=model, o=optimizer: step(m, o))) == 1


def test_other_optimizers_that_step_in_between_cause_no_warning():
    model, others = nn.Linear(3, 2), [nn.Linear(3, 2) for _ in range(20)]
    groups = groups_of(model)
    optimizer, *rest = [torch.optim.Adam(groups), *(torch.optim.SGD(m.parameters(), lr=0.1) for m in others)]

    def steps():
        for _ in range(3):
            term = tl.penalty(groups)
            for m, o in zip(others, rest, strict=True):
                step(m, o)
            optimizer.zero_grad()
            (model(X).square().mean() + term).backward()
            optimizer.step()

    assert not told(steps)


def test_lambda_of_zero_causes_no_warning():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(tl.param_groups(model, tl.L1(), lam=0.0))
    assert not told(lambda: step(model, optimizer))
    optimizer.param_groups[0]["lam"] = 1e-3
    assert len(told(lambda: step(model, optimizer))) == 1
