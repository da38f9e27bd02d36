"""The first steps of a search in the latent form, in which the rate warms up and nothing is cut."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.training.schedules import rate

STEPS, RATE = 100, 1e-2


def train(order: str) -> tuple[float, list[float]]:
    """Train towards 30 % of the FLOPs; return the error, and what was left after the first ten steps and the last.

    Args:
        order: whether the rate of a step is set before the step, or after the one before it, as schedulers do.
    """
    torch.manual_seed(0)
    x = torch.randn(512, 100)
    y = (x[:, :3].sum(dim=1) > 0).long() + 2 * (x[:, 3] > 0.5).long()
    model = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    rules = [tl.Rule("4.*", None), tl.Rule("*", tl.L1(over=tl.Units(model, x[:2], by="flops")))]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.05), lr=RATE, form="latent")
    control = tl.TargetBudget(optimizer, model, x[:64], flops=0.3, steps=STEPS)

    def set_rate(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate("wsd", step, STEPS, warmup=0.05)

    left = []
    set_rate(0)
    for step in range(STEPS):
        if order == "before":
            set_rate(step)
        rows = torch.randperm(512, generator=torch.Generator().manual_seed(step))[:64]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        if order == "after":
            set_rate(step + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tl.control.TargetMissed)  # a unit more or less
            control.step()
        if step < 10 or step == STEPS - 1:
            left.append(control.left[0])
    return float((model(x).argmax(dim=1) != y).float().mean()), left


@pytest.mark.parametrize("order", ["before", "after"])
def test_no_layer_of_units_is_lost_while_the_rate_warms_up(order):
    """Units of a layer are about equally large at the start: one threshold takes all of them, and they stay dead."""
    error, left = train(order)
    assert left[:4] == [1.0] * 4
    assert min(left[:10]) > 0.8
    assert 0.2 < left[-1] <= 0.3
    assert error < 0.1
