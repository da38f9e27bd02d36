"""Every way to compute a step gives the weights, the state and the zeros of the readable reference."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from tests.support.implementations import IMPLEMENTATIONS, assert_alike, random_gradients
from tests.support.optimizers import CASES
from tests.support.pairwise import pairwise
from torchlasso.optim.fused import device, updates

STEPS = 30
FUSED = [name for name, (base, _) in CASES.items() if base in updates.fused_updates()]
# name -> the penalty, and a λ for which some weights are zero and some are not
PENALTIES = {"L1": (tl.L1(), 0.6), "rows": (tl.L1(over=tl.Rows()), 0.8)}


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 5), (4, 3, 2), (8, 3)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64) / 5) for s in shapes]


def options_of(base: type, way: str) -> dict[str, object]:
    """Return the options that select an implementation, except those that the torch optimizer does not have."""
    known = inspect.signature(base.__init__).parameters
    return {name: value for name, value in IMPLEMENTATIONS[way].items() if name in known}


def build(case: str, ws: list[nn.Parameter], kind: str, way: str = "one by one") -> tl.Proximal:
    """An optimizer of three parameters with a penalty and one without, one of them with another strength."""
    base, defaults = CASES[case]
    penalty, lam = PENALTIES[kind]
    if case.startswith("SGD "):  # momentum makes its steps longer
        lam *= 0.4
    groups = [{"params": ws, "penalty": penalty, "lam": lam}, {"params": [nn.Parameter(ws[0].detach().clone())]}]
    groups[1]["penalty"] = None
    optimizer = tl.proximal(base)(groups, **{**defaults, **options_of(base, way)})
    optimizer.param_groups[0]["lam_scales"] = [1.0, 0.5, 1.0]
    return optimizer


def set_rate(optimizer: tl.Proximal, t: int) -> None:
    """Let the rate fall by a fifth in each step after the tenth."""
    for group in optimizer.param_groups:
        group["lr"] *= 0.8 if t > 10 else 1.0


def train(optimizer: tl.Proximal, step: object, ws: list[nn.Parameter]) -> list[Tensor]:
    """Train on random gradients while the rate falls; a parameter joins late, and some coordinates wait even longer."""
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(STEPS):
        random_gradients(everything, t)
        ws[0].grad[0] *= t >= 12  # never had a gradient until then
        ws[0].grad[:, 1] = 0.0
        ws[1].grad[0] *= t >= 20
        if t < 5:
            ws[1].grad = None
        set_rate(optimizer, t)
        step()
    return [p.detach() for p in everything]


NUMBERS = ("gains", "plain_gains", "lr_peak")


def numbers(optimizer: tl.Proximal) -> list[list[float]]:
    values = [group[name] for group in optimizer.param_groups for name in NUMBERS]
    return [torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist() for value in values]


def exists(case: str, way: str, kind: str) -> bool:
    return way != "fused" or case in FUSED


@pairwise(where=exists, case=CASES, way=IMPLEMENTATIONS, kind=PENALTIES)
def test_a_step_agrees_with_the_reference(case: str, way: str, kind: str) -> None:
    ours, theirs = weights(), weights()
    optimizer, other = build(case, ours, kind, way), build(case, theirs, kind)
    found, expected = train(optimizer, optimizer.step, ours), train(other, other._reference_step, theirs)
    for w, u in zip(found, expected, strict=True):
        assert_alike(w, u)
    zeros = sum(int((u == 0).sum()) for u in expected[:3])
    assert 0 < zeros < sum(u.numel() for u in expected[:3])
    assert numbers(optimizer) == [pytest.approx(each, rel=1e-12) for each in numbers(other)]
    for p, q in zip(ours, theirs, strict=True):
        for name, value in other.state[q].items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(optimizer.state[p][name], value, rtol=1e-9, atol=1e-12)


# betas without a first average: the window has nothing to lengthen on a device, either
DEVICE = [(case, {}) for case in FUSED] + [("Adam", {"betas": (0.0, 0.9)})]


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize(("case", "options"), DEVICE, ids=str)
def test_a_step_on_a_device_agrees_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, case: str, options: dict, kind: str
) -> None:
    base, defaults = CASES[case]
    monkeypatch.setitem(CASES, case, (base, {**defaults, **options}))
    monkeypatch.setattr(device, "_compiled", lambda step, shapes: step)
    monkeypatch.setattr(device, "_are_on_device", lambda params: True)
    ours, theirs = weights(), weights()
    optimizer, other = build(case, ours, kind, "fused"), build(case, theirs, kind)
    found, expected = train(optimizer, optimizer.step, ours), train(other, other._reference_step, theirs)
    for w, u in zip(found, expected, strict=True):
        assert_alike(w, u)
    assert numbers(optimizer) == [pytest.approx(each, rel=1e-12) for each in numbers(other)]


@pytest.mark.parametrize("way", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["SGD momentum", "Adam", "AdamW"])
def test_weights_of_blocks_count_as_in_the_reference(case: str, way: str) -> None:
    results = []
    for ours in (True, False):
        ws = weights()
        optimizer = build(case, ws, "L1", way if ours else "one by one")
        optimizer.weights[ws[0]] = torch.linspace(0.1, 2.0, 30, dtype=torch.float64).view(6, 5)
        results.append(train(optimizer, optimizer.step if ours else optimizer._reference_step, ws))
    for w, u in zip(*results, strict=True):
        assert_alike(w, u)
    assert (results[1][0] == 0).any()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("way", ["one by one", "foreach"])
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adagrad], ids=lambda cls: cls.__name__)
def test_sparse_gradients_are_stepped_as_by_the_reference_with_dense_ones(base: type, way: str) -> None:
    results = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(20, 3, sparse=sparse, dtype=torch.float64)
        optimizer = tl.proximal(base)(
            [table.weight], lr=0.1, penalty=tl.L1(), lam=0.2, **options_of(base, way if sparse else "one by one")
        )
        for t in range(STEPS):
            rows = torch.randint(0, 15, (6,), generator=torch.Generator().manual_seed(t))
            optimizer.zero_grad()
            set_rate(optimizer, t)
            (table(rows) - 1).square().sum().div(2).backward()
            assert table.weight.grad.is_sparse is sparse
            optimizer.step() if sparse else optimizer._reference_step()
        results.append(table.weight.detach())
    assert_alike(*results)
    assert 0 < (results[1] == 0).sum() < results[1].numel()


@pytest.mark.parametrize("way", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["SGD momentum", "Adam", "AdamW"])
def test_blocks_over_several_parameters_are_stepped_as_by_the_reference(case: str, way: str) -> None:
    results = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        x = torch.randn(16, 6, dtype=torch.float64)
        base, defaults = CASES[case]
        groups = tl.param_groups(model, tl.L1(over=tl.Units(model, x[:2])), lam=0.05)
        optimizer = tl.proximal(base)(groups, **defaults, **IMPLEMENTATIONS[way if ours else "one by one"])
        for t in range(STEPS):
            optimizer.zero_grad()
            set_rate(optimizer, t)
            F.mse_loss(model(x)[:, 0], x[:, 0]).backward()
            optimizer.step() if ours else optimizer._reference_step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert_alike(*results)
    assert 0 < (results[1] == 0).sum() < len(results[1])
