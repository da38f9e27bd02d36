"""The end of a search in the default form: the gap to the target is closed, in any number of steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.pairwise import pairwise
from torchlasso.control import costs
from torchlasso.control.ranking import Ranking

OPTIMIZERS = {
    "adam": lambda groups, form: tl.ProxAdam(groups, lr=5e-3, form=form),
    "sgd": lambda groups, form: tl.ProxSGD(groups, lr=0.02, momentum=0.9, form=form),
}


def problem(seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(256, 12)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs() - 1, x[:, 3]], dim=1).argmax(dim=1)
    return nn.Sequential(nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 3)), x, y


def rules_for(penalty: str, model: nn.Module, x: Tensor) -> Any:
    if penalty == "units":
        return tl.L1(over=tl.Units(model, x[:2]))
    over = tl.Rows()
    return [
        tl.Rule("4.*", None),
        tl.Rule("*", {"rows": tl.L1, "mcp": tl.MCP, "sparse group": tl.SparseGroup}[penalty](over=over)),
    ]


def train(seed: int, steps: int, penalty: str, optimizer: str, form: str, more: str, **budget: float) -> Any:
    """Train to a budget; return its controller."""
    model, x, y = problem(seed)
    groups = tl.param_groups(model, rules_for(penalty, model, x), lam=0.05 if form == "latent" else 1e-3)
    made = OPTIMIZERS[optimizer](groups, form)
    holds = [tl.Hold(made, steps, 0.25)] if "hold" in more else []
    control = tl.TargetBudget(made, model, x[:32], steps=holds[0].start if holds else steps, **budget)
    controls = [*holds, control, *([tl.Reweighted(made, theta=0.1)] if "reweighted" in more else [])]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
    for step in range(steps):
        rows = torch.randint(len(x), (64,), generator=torch.Generator().manual_seed(step))
        made.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        made.step()
        scheduler.step()
        for each in controls:
            each.step()
    return control


# --- landing ---


@pytest.mark.slow
@pairwise(
    seed=[0, 1],
    steps=[50, 100],
    penalty=["rows", "units", "sparse group"],
    optimizer=["adam", "sgd"],
    form=["proximal", "latent"],
    more=["", "reweighted", "hold"],
    kind=["flops", "parameters", "bytes"],
)
def test_a_budget_lands_within_a_unit_in_any_number_of_steps(seed, steps, penalty, optimizer, form, more, kind):
    if penalty == "sparse group" and "reweighted" in more:
        more = "hold"  # it has no magnitudes to take weights from
    control = train(seed, steps, penalty, optimizer, form, more, **{kind: 0.4})
    assert 0.4 - control.tolerance < control.left[0] <= 0.4
    assert control.missed is None


@pytest.mark.slow
def test_a_flat_penalty_lands_too():
    assert 0.39 < train(0, 60, "mcp", "adam", "proximal", "", flops=0.4).left[0] <= 0.4


def test_a_latency_lands_too(monkeypatch):
    """With times that are known: a microsecond for each call of a layer, and a nanosecond for each weight."""

    def seconds(module: nn.Module, tensors: dict[str, Tensor], inputs: object) -> float:
        return 1e-6 + 1e-9 * sum(p.numel() for p in (tensors or dict(module.named_parameters())).values())

    monkeypatch.setattr(costs, "_seconds", seconds)
    assert 0.88 < train(0, 60, "rows", "adam", "proximal", "", latency=0.9).left[0] <= 0.9


# --- the ranking ---


def ranked(sizes: list[float], lr: float = 0.1, allow_empty: bool = True) -> tuple[nn.Parameter, Ranking]:
    w = nn.Parameter(torch.tensor(sizes)[:, None])
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(over=tl.Rows()), lam=1e-6)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = lr
    return w, Ranking(optimizer, optimizer.param_groups, allow_empty)


@pytest.mark.parametrize("lr", [0.1, 0.0])
def test_blocks_are_in_the_order_of_their_thresholds_at_any_rate(lr):
    w, ranking = ranked([0.5, -0.1, 0.0, 0.3, 2.0], lr)
    assert ranking.number == 4
    assert ranking.least(4).tolist() == [1, 3, 0, 4]
    without = ranking.without(ranking.least(2))[w]
    assert without.count_nonzero() == 2
    assert w.count_nonzero() == 4
    ranking.remove_(ranking.least(3))
    assert w.nonzero()[:, 0].tolist() == [4]


def test_the_last_block_of_a_layer_stays():
    _, ranking = ranked([0.5, -0.1, 2.0], allow_empty=False)
    assert ranking.least(9).tolist() == [1, 0]


@pytest.mark.parametrize(("most", "fewest"), [(1.0, 1), (0.8, 2), (0.5, 5), (0.05, 10), (0.01, 10)])
def test_the_fewest_blocks_are_found(most, fewest):
    _, ranking = ranked([0.1 * (i + 1) for i in range(10)])
    calls = list[int]()

    def left(blocks: Tensor) -> float:
        calls.append(len(blocks))
        return 1 - len(blocks) / 10

    assert ranking.fewest(left, most) == fewest
    assert len(calls) <= 7


def test_smaller_blocks_stay_in_the_place_of_a_large_one():
    """Costs of 1, 2, 3, 10 and 4, in their order: the large one goes, and of the others those that do not fit."""
    _, ranking = ranked([0.1, 0.2, 0.3, 0.4, 0.5])
    costs = torch.tensor([1.0, 2.0, 3.0, 10.0, 4.0])

    def left(blocks: Tensor) -> float:
        return float(costs.sum() - costs[blocks].sum())

    assert sorted(ranking.nearest(left, 11.0, near=0.1).tolist()) == [3]
    assert sorted(ranking.nearest(left, 9.0, near=0.1).tolist()) == [0, 3]
    assert sorted(ranking.nearest(left, 0.0, near=0.1).tolist()) == [0, 1, 2, 3, 4]
