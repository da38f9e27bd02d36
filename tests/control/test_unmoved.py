"""The start of a search in the latent form: which zeros count as gone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.control.unmoved import left_at_start


def optimizer_of(model: nn.Module) -> tl.ProxAdam:
    return tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=1e-2, form="latent")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def step(model: nn.Module, optimizer: tl.ProxAdam, *controls) -> None:
    x = torch.randn(32, 10, generator=torch.Generator().manual_seed(1))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), torch.arange(32) % 4).backward()
    optimizer.step()
    for control in controls:
        control.step()


def test_the_zeros_of_a_layer_that_starts_at_zero_are_left():
    model = network()
    nn.init.zeros_(model[2].weight)
    assert tl.TargetSparsity(optimizer_of(model), 0.9, steps=100).starts == [1.0]


def test_zeros_among_other_weights_were_chosen():
    model = network()
    with torch.no_grad():
        model[2].weight[:8] = 0
    total = 160 + 256 + 64
    assert tl.TargetSparsity(optimizer_of(model), 0.9, steps=100).starts == pytest.approx([1 - 128 / total])


def test_a_layer_that_training_made_zero_has_lost_its_weights():
    model = network()
    optimizer = optimizer_of(model)
    step(model, optimizer)
    with torch.no_grad():
        model[2].weight.zero_()
    assert tl.TargetSparsity(optimizer, 0.9, steps=100).starts == pytest.approx([1 - 256 / 480])


def test_a_group_that_starts_at_zero_has_a_plan_of_its_own():
    model = network()
    nn.init.zeros_(model[4].weight)
    rules = [tl.Rule("4.*", tl.L1()), tl.Rule("*", tl.L1())]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.05), lr=1e-2, form="latent")
    assert tl.TargetSparsity(optimizer, 0.5, steps=100, scope="group").starts == [1.0, 1.0]


def test_a_budget_counts_what_feeds_a_layer_that_starts_at_zero():
    model = network()
    nn.init.zeros_(model[4].weight)
    x = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    assert tl.TargetBudget(optimizer_of(model), model, x, flops=0.5, steps=100).starts == pytest.approx([1.0])


def test_no_cut_takes_a_zero_layer_back_in_the_first_steps():
    model = network()
    nn.init.zeros_(model[2].weight)
    optimizer = optimizer_of(model)
    control = tl.TargetSparsity(optimizer, 0.9, steps=200)
    step(model, optimizer, control)
    first = control.left[0]
    for _ in range(7):
        step(model, optimizer, control)
    assert optimizer.param_groups[0]["cut"] == 1
    assert control.left[0] > 0.95 * first


def test_the_generator_of_torch_is_left_alone():
    params = [nn.Parameter(torch.zeros(3, 2))]
    optimizer = tl.ProxAdam(params, lr=0.1, penalty=tl.L1(), lam=0.1)
    before = torch.get_rng_state()
    (w,) = left_at_start(optimizer, params)
    assert w.count_nonzero() == 6
    assert not params[0].count_nonzero()
    assert bool((torch.get_rng_state() == before).all())
