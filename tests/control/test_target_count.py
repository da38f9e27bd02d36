"""Targets in blocks: training ends with exactly so many live ones, in both forms of a step and for any kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.control.live_blocks import count_all, count_live
from torchlasso.control.ranking import Ranking

STEPS = 50


def data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 12, generator=generator)
    return x, x[:, :1] * x[:, 1:2] + torch.sin(2 * x[:, 2:3]) + 0.1 * torch.randn(200, 1, generator=generator)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 1))


KINDS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "inputs": lambda model, x: tl.L1(over=tl.Inputs(model, x[:2])),
    "units": lambda model, x: tl.L1(over=tl.Units(model, x[:2])),
    "rows": lambda model, x: tl.L1(over=tl.Rows()),
    "filters": lambda model, x: [tl.Rule("[02].weight", tl.MCP(over=tl.Filters()))],
    "heads": lambda model, x: [tl.Rule("0.weight", tl.L1(over=tl.Heads(n=5)))],
    "weights": lambda model, x: tl.L1(),
}


class Training:
    """A training with a target, of which steps can be done one after the other."""

    def __init__(self, seed: int = 0, kind: str = "inputs", form: str = "proximal", steps: int = STEPS, **target: Any):
        self.model, (self.x, self.y) = network(seed), data(seed)
        groups = tl.param_groups(self.model, KINDS[kind](self.model, self.x), lam=1e-3 if form == "proximal" else 0.05)
        self.optimizer = tl.ProxAdam(groups, lr=0.01, form=form)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.control = tl.TargetCount(self.optimizer, steps=steps, **target)
        self.others: list[Any] = []
        self.seed = seed

    def run(self, start: int = 0, stop: int = STEPS) -> Training:
        for step in range(start, stop):
            batch = torch.randint(200, (50,), generator=torch.Generator().manual_seed(1000 * self.seed + step))
            self.optimizer.zero_grad()
            (self.model(self.x[batch]) - self.y[batch]).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            for each in (*self.others, self.control):
                each.step()
        return self

    @property
    def live(self) -> int:
        pairs = zip(self.optimizer.param_groups, self.optimizer.penalties, strict=True)
        return sum(sum(count_live(p, g["params"], g["params"])) for g, p in pairs if p is not None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_eight_of_eight_seeds_end_with_exactly_as_many_features(form):
    assert [Training(seed, form=form, features=4).run().live for seed in range(8)] == [4] * 8


@pytest.mark.parametrize("form", ["proximal", "latent"])
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("inputs", {"features": 3}),
        ("units", {"units": 9}),
        ("rows", {"units": 11}),
        ("filters", {"blocks": 7}),
        ("heads", {"heads": 2}),
        ("weights", {"blocks": 37}),
    ],
)
def test_blocks_of_every_kind_end_exactly(kind, target, form):
    if kind == "filters" and form == "latent":
        pytest.skip("the latent form needs a convex penalty")
    training = Training(1, kind, form, **target).run()
    assert training.live == next(iter(target.values()))
    assert training.control.missed is None


def test_the_features_that_matter_are_found_and_dead_ones_do_not_come_back():
    training = Training(1, features=3).run()
    (penalty,) = [p for p in training.optimizer.penalties if p is not None]
    assert penalty.over.live(training.model).nonzero()[:, 0].tolist() == [0, 1, 2]
    training.run(STEPS, STEPS + 5)
    assert training.live == 3


def test_a_share_of_blocks_is_rounded_to_a_whole_number_of_them():
    model, (x, y) = network(0), data(0)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Inputs(model, x[:2])), lam=1e-3), lr=0.01)
    control = tl.TargetSparsity(optimizer, 0.7, count="blocks", steps=STEPS)
    assert control.shares == [4 / 12]
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        control.step()
    assert control.left == [4 / 12]


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_reweighting_and_a_hold_compose_with_a_target(form):
    training = Training(2, form=form, steps=38, features=5)
    training.others = [tl.Reweighted(training.optimizer), tl.Hold(training.optimizer, STEPS, 0.25)]
    assert training.run().live == 5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["proximal", "latent"])
@pytest.mark.parametrize("pause", [20, 35, 47])
def test_a_training_resumes_to_the_bit(form, pause):
    whole = Training(3, form=form, features=4).run()
    first = Training(3, form=form, features=4).run(stop=pause)
    parts = (first.model, first.optimizer, first.scheduler, first.control)
    states = copy.deepcopy([part.state_dict() for part in parts])
    again = Training(3, form=form, features=4)
    for part, state in zip((again.model, again.optimizer, again.scheduler, again.control), states, strict=True):
        part.load_state_dict(state)
    again.run(start=pause)
    for p, q in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("penalty", [tl.L1, tl.MCP, tl.SCAD])
def test_the_last_gap_is_closed_without_harm_to_the_blocks_that_stay(penalty):
    w = nn.Parameter(torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0], [0.3, 0.4]]))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=penalty(over=tl.Rows(weighted=False)), lam=0.5)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    before = w.detach().clone()
    ranking = Ranking(optimizer, optimizer.param_groups, allow_empty=True)
    ranking.remove_(ranking.least(1))
    assert torch.equal(w[:3], before[:3])
    assert not w[3].any()
    ranking.remove_(ranking.least(2))
    assert torch.equal(w[0], before[0])
    assert not w[1:].any()


def test_no_layer_is_emptied_unless_it_may_be():
    def left(allow_empty: bool) -> list[int]:
        one, two = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.full((3, 2), 0.1))
        optimizer = tl.ProxSGD([one, two], lr=0.1, penalty=tl.L1(over=tl.Rows()), lam=1e-3)
        one.grad, two.grad = torch.zeros(3, 2), torch.zeros(3, 2)
        optimizer.step()
        ranking = Ranking(optimizer, optimizer.param_groups, allow_empty)
        ranking.remove_(ranking.least(3))
        return count_live(tl.L1(over=tl.Rows()), [one, two], [one, two])

    assert left(allow_empty=False) == [2, 1]
    assert left(allow_empty=True) == [3, 0]


def test_blocks_are_counted_at_the_first_parameter_of_their_set():
    model, (x, _) = network(0), data(0)
    model.add_module("skip", nn.Linear(1, 1))
    over = tl.Units(model[:5], x[:2])
    params = [dict(model.named_parameters())[name] for name in over.names]
    assert count_all(tl.L1(over=over), params) == [30, *[0] * (len(params) - 1)]
    with torch.no_grad():
        model[0].weight[4].zero_()
        model[0].bias[4].zero_()
    assert sum(count_live(tl.L1(over=over), params, params)) == 29


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"features": 0}, "features must be a whole number of at least 1; got 0"),
        ({"features": 12}, "features=12 leaves nothing to remove: there are 12"),
        ({"features": 50}, "features=50 leaves nothing to remove: there are 12"),
        ({"features": 2.5}, "whole number"),
        ({"features": True}, "whole number"),
        ({"units": 3}, "whose blocks are features"),
        ({}, "give one of blocks, features, units, heads; got none"),
        ({"features": 3, "blocks": 3}, "give one of .*; got blocks, features"),
    ],
)
def test_a_target_that_cannot_be_met_is_one_clear_error(target, message):
    with pytest.raises(ValueError, match=message) as caught:
        Training(**target)
    assert "\n" not in str(caught.value)


def test_blocks_that_cannot_be_counted_are_refused():
    w = nn.Parameter(torch.ones(4, 4))
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(over=tl.SingularValues()), lam=0.1)
    with pytest.raises(ValueError, match="are not weights, so they cannot be counted"):
        tl.TargetSparsity(optimizer, 0.5, count="blocks", steps=10)
    with pytest.raises(ValueError, match="unknown count 'rows'"):
        tl.TargetSparsity(optimizer, 0.5, count="rows", steps=10)


@pytest.mark.parametrize("over", [tl.FanIn(0.2), tl.NM(1, 4)], ids=str)
def test_blocks_of_which_some_are_spared_are_counted(over: tl.Blocks) -> None:
    model, (x, y) = network(0), data(0)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=over), lam=1e-2), lr=0.01)
    control = tl.TargetCount(optimizer, 150, steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        control.step()
    assert sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() > 1) == 150
