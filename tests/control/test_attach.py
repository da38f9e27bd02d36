"""Controllers that step with their optimizer, and optimizers in wrappers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import torchlasso as tl


def problem() -> tuple[nn.Parameter, tl.Proximal]:
    w = nn.Parameter(torch.ones(3))
    return w, tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.5)


def test_an_attached_controller_steps_with_its_optimizer_until_it_is_removed():
    w, optimizer = problem()
    control = tl.Warmup(optimizer, steps=10)
    handle = control.attach()
    for _ in range(3):
        w.grad = torch.ones(3)
        optimizer.step()
    assert control.done == 3
    handle.remove()
    optimizer.step()
    assert control.done == 3


def test_no_step_counts_twice():
    _, optimizer = problem()
    control = tl.Warmup(optimizer, steps=10)
    handle = control.attach()
    assert control.attach() is handle
    optimizer.step()
    with pytest.raises(
        ValueError, match=r"^Warmup is attached and steps with its optimizer: leave out the calls of step"
    ):
        control.step()
    assert control.done == 1
    handle.remove()
    control.step()
    control.attach()
    optimizer.step()
    assert control.done == 3


def test_a_step_that_a_scaler_skips_does_not_count():
    w, optimizer = problem()
    control = tl.Warmup(optimizer, steps=10)
    control.attach()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for grad in (1.0, torch.inf, 1.0):
        scaler.scale(w.sum()).backward()
        w.grad.fill_(grad)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert control.done == 2


def through_a_file(whole):
    file = io.BytesIO()
    torch.save(whole, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_a_file])
def test_a_copy_is_attached_to_the_copy_of_its_optimizer(copied):
    _, optimizer = problem()
    attached, alone, removed = (tl.Warmup(optimizer, steps=10) for _ in range(3))
    attached.attach()
    removed.attach().remove()
    *copies, new = copied((attached, alone, removed, optimizer))
    assert all(each.optimizer is new for each in copies)
    new.step()
    optimizer.step()
    assert [each.done for each in (attached, alone, removed, *copies)] == [1, 0, 0, 1, 0, 0]


@pytest.mark.slow
def test_wrapped_optimizers_are_taken():
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Units(model, x)), lam=0.01), lr=0.01)
    _, wrapped = accelerate.Accelerator(cpu=True).prepare(model, optimizer)
    assert wrapped is not optimizer
    kinds = [
        lambda each: tl.TargetSparsity(each, 0.5, steps=10),
        lambda each: tl.TargetCount(each, units=4, steps=10),
        lambda each: tl.TargetBudget(each, model, x, flops=0.5, steps=10),
        lambda each: tl.Warmup(each, steps=10),
        lambda each: tl.Reweighted(each),
        lambda each: tl.Hold(each, steps=10),
    ]
    for make in kinds:
        assert make(wrapped).optimizer is optimizer
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[:3] = 0
        model[2].weight[:, :3] = 0
    model(x).sum().backward()
    optimizer.step()
    tl.shrink_(model, wrapped, x)
    assert model[0].out_features == 5
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (5, 4)
