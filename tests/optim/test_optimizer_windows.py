"""The averaging window is each parameter's own and moves neither decay nor threshold, in every implementation."""

import copy

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import EACH, FEW, IMPLEMENTATIONS, NAMES, assert_alike, options_of
from tests.support.optimizers import CASES
from tests.support.pairwise import pairwise

RATES = {"falling": [0.9**t for t in range(25)], "up and down": [1.0 - abs(t - 12) / 14 for t in range(25)]}
FALLING = pytest.mark.parametrize("rates", RATES)


def make(case: str, implementation: str, ws, lam: float, **options) -> tl.Proximal:
    cls = tl.proximal(CASES[case][0])
    return cls(ws, penalty=tl.L1(), lam=lam, **{**options_of(case, implementation), **options})


def step(optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, rates=RATES)
def test_parameters_that_join_and_pause_are_as_they_are_alone(case, implementation, rates):
    present = [lambda t: True, lambda t: t >= 8, lambda t: t % 3 != 1, lambda t: t < 5 or t >= 15]
    together, alone = ([nn.Parameter(torch.linspace(-1, 1, 6).double()) for _ in present] for _ in range(2))
    optimizer = make(case, implementation, together, 0.3)
    singles = [make(case, "one by one", [w], 0.3) for w in alone]
    lr = CASES[case][1]["lr"]
    for t, rate in enumerate(RATES[rates]):
        for w, twin, is_there, single in zip(together, alone, present, singles, strict=True):
            grad = torch.randn(6, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
            w.grad, twin.grad = (grad.clone() if is_there(t) else None for _ in range(2))
            # the largest rate so far is the group's, as soon as a member has a gradient
            single.param_groups[0]["lr_peak"] = max([0.0, *(lr * r for r in RATES[rates][: t + 1])])
            step(single, lr * rate)
        step(optimizer, lr * rate)
    for w, twin in zip(together, alone, strict=True):
        assert_alike(w.detach(), twin.detach())
    assert len({tuple(w.tolist()) for w in together}) == len(together)


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, rates=RATES)
def test_the_threshold_is_lam_times_the_step_under_a_unit_gradient(case, implementation, rates):
    gradient = torch.tensor([1.0, 0.25, 3.0, 1e-3], dtype=torch.float64)
    w = nn.Parameter(torch.full_like(gradient, 1e3))
    optimizer = make(case, implementation, [w], 0.0, weight_decay=0.0)
    for rate in RATES[rates]:
        w.grad = gradient.clone()
        ahead, ahead_optimizer = copy.deepcopy((w, optimizer))
        ahead.grad = gradient.clone()
        ahead_optimizer.param_groups[0]["lam"] = 0.5
        before = w.detach().clone()
        step(optimizer, rate)
        step(ahead_optimizer, rate)
        expected = 0.5 * (before - w.detach()) / gradient
        torch.testing.assert_close(w.detach() - ahead.detach(), expected, rtol=1e-7, atol=1e-12)
        assert (expected > 0).all()


@FALLING
@EACH
def test_decoupled_decay_follows_the_rate(implementation, rates):
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = make("AdamW", implementation, [w], 0.0, weight_decay=0.5)
    expected = 1.0
    for rate in RATES[rates]:
        w.grad = torch.zeros_like(w)
        step(optimizer, 0.1 * rate)
        expected *= 1 - 0.1 * rate * 0.5
    torch.testing.assert_close(w.detach(), torch.full_like(w, expected), rtol=1e-12, atol=0.0)


@EACH
@FEW
def test_the_strength_of_a_group_without_a_penalty_is_nothing(case, implementation):
    results = []
    for lam in (0.0, 10.0):
        penalised, free = (nn.Parameter(torch.linspace(-1, 1, 6).double()) for _ in range(2))
        groups = [{"params": [penalised]}, {"params": [free], "penalty": None}]
        optimizer = make(case, implementation, groups, 0.1)
        optimizer.param_groups[1]["lam"] = lam  # as a scheduler of λ may that writes into every group
        for t in range(5):
            for w in (penalised, free):
                w.grad = torch.randn(6, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
            optimizer.step()
        results.append(torch.cat([penalised, free]).detach())
    assert torch.equal(*results)
