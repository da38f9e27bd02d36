"""Constant and Warmup: λ at every step, and invalid arguments."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import torchlasso as tl

SHAPES = {
    "line": lambda done: done,
    "cosine": lambda done: 0.5 * (1 - math.cos(math.pi * done)),
    "polynomial": lambda done: 1 - (1 - done) ** 3,
    "step": lambda done: float(done >= 0.5),
    "stairs": lambda done: math.floor(4 * done) / 4,
    "falling": lambda done: 1 - done,
    "above one": lambda done: 2 + done,
    "constant": lambda done: 1,
    "of numpy": np.sqrt,
    "of torch": lambda done: torch.tensor(done).square(),
}


def optimizer_of(lam: float = 0.3) -> tl.Proximal:
    penalised, free = nn.Parameter(torch.linspace(-1, 1, 6)), nn.Parameter(torch.ones(2))
    return tl.ProxSGD(
        [{"params": [penalised], "penalty": tl.L1()}, {"params": [free], "penalty": None}], lr=0.1, lam=lam
    )


def update(optimizer: tl.Proximal) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, 0.5)
    optimizer.step()


def sequence(control: tl.LambdaController, steps: int) -> list[float]:
    """λ before each step, and after the last."""
    found = [*control.lam]
    for _ in range(steps):
        update(control.optimizer)
        control.step()
        found += control.lam
    return found


def test_warmup_is_a_line_from_zero_and_then_all_of_lam():
    found = sequence(tl.Warmup(optimizer_of(), steps=8), 12)
    assert found == pytest.approx([0.3 * min(1, step / 8) for step in range(13)])
    assert found[0] == 0.0
    assert found[8:] == [0.3] * 5


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", SHAPES)
def test_any_function_of_the_share_that_is_done(name, steps):
    shape = SHAPES[name]
    control = tl.Warmup(optimizer_of(), steps=steps, shape=shape)
    expected = [0.3 * float(shape(min(1.0, step / steps))) for step in range(steps + 4)]
    found = sequence(control, steps + 3)
    assert found == pytest.approx(expected)
    assert all(type(lam) is float for lam in found)


def test_the_function_is_given_shares_from_0_to_1():
    shares = []
    sequence(tl.Warmup(optimizer_of(), steps=4, shape=lambda done: shares.append(done) or done), 6)
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_at_the_start_there_is_no_penalty_and_at_the_end_all_of_it():
    ours, plain = optimizer_of(lam=1e4), optimizer_of(lam=0.0)
    control = tl.Warmup(ours, steps=1)
    update(ours)
    update(plain)
    w = ours.param_groups[0]["params"][0]
    assert torch.equal(w, plain.param_groups[0]["params"][0])
    assert w.all()
    control.step()
    update(ours)
    assert not w.any()


def test_a_function_that_falls_to_zero_frees_the_weights():
    optimizer = optimizer_of(lam=1e4)
    control = tl.Warmup(optimizer, steps=3, shape=lambda done: float(done < 1))
    zeros = []
    for _ in range(5):
        update(optimizer)
        control.step()
        zeros.append(int((optimizer.param_groups[0]["params"][0] == 0).sum()))
    assert zeros == [6, 6, 6, 0, 0]


def test_groups_without_a_penalty_are_left_alone():
    optimizer = optimizer_of()
    before = dict(optimizer.param_groups[1])
    sequence(tl.Warmup(optimizer, steps=4), 2)
    assert {**before, "lr_peak": 0.1} == optimizer.param_groups[1]


def test_a_lam_of_zero_stays_zero():
    assert sequence(tl.Warmup(optimizer_of(lam=0.0), steps=4), 6) == [0.0] * 7


def test_the_rate_is_nothing_to_lam():
    optimizer = optimizer_of()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    control = tl.Warmup(optimizer, steps=8)
    for step in range(8):
        assert control.lam == pytest.approx([0.3 * step / 8])
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * step / 8)))
        update(optimizer)
        scheduler.step()
        control.step()


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_one_are_refused(steps):
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=f"^Warmup: steps must be a whole number of at least 1; got {steps}$"):
        tl.Warmup(optimizer, steps=steps)
    assert optimizer.param_groups[0]["lam"] == 0.3


@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf, -math.inf])
def test_an_invalid_factor_is_refused_when_it_occurs(value):
    message = r"^Warmup: shape\({}\) must be a finite number of at least 0; got {}$"
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=message.format(0, value)):
        tl.Warmup(optimizer, steps=4, shape=lambda done: value)
    assert optimizer.param_groups[0]["lam"] == 0.3
    control = tl.Warmup(optimizer, steps=4, shape=lambda done: value if done > 0.6 else 1.0)
    control.step()
    control.step()
    with pytest.raises(ValueError, match=message.format(0.75, value)):
        control.step()
    assert control.lam == [0.3]


def test_only_a_proximal_optimizer_has_a_lam():
    plain = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    for make in (lambda optimizer: tl.Warmup(optimizer, steps=4), tl.Reweighted):
        with pytest.raises(TypeError, match=r"controls the λ of a proximal optimizer such as .*; got Adam$"):
            make(plain)
