"""Critical factors of blocks: as many trials as wanted, and each as if the weights were computed anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.pairwise import pairwise
from torchlasso.optim.rising import Rise, growing, rescaled
from torchlasso.penalties import SparseGroup, blocks, registry
from torchlasso.penalties.blocks import Chunks, Columns, Filters, Heads, InputChannels, Rows
from torchlasso.penalties.kept import count_kept

SHAPES = [(6, 4, 3), (6, 8)]
FACTORS = [0.0, 0.2, 0.7, 1.0, 1.3, 2.0, 5.0, 1e6]
OVER = [
    *(Heads(n=1) if cls is Heads else cls() for cls in blocks.registry().values()),
    Rows(weighted=False),
    Filters(transposed=True, groups=2),
    InputChannels(groups=3),
    Heads(n=2, dim=1),
    Chunks(n=5),
    Columns(weighted=False),
]
CONVEX = {name: penalty for name, penalty in registry().items() if penalty.convex}
KINDS = ["growing", "rescaled", "capped"]
WEIGHTINGS = [None, "reweighted", "reweighted later", "adaptive"]


def suits(name: str, over: blocks.Blocks, *_: object) -> bool:
    odd = isinstance(over, blocks.SingularValues) or over.spares or not over.symmetric
    return not (issubclass(CONVEX[name], SparseGroup) and odd)


def weigh(optimizer: tl.Proximal, params: list[nn.Parameter], weighting: str | None, step: int) -> tl.Reweighted | None:
    if weighting is None or (weighting == "reweighted later" and step < 3):
        return None
    reference = {p: torch.randn_like(p.detach()) for p in params} if weighting == "adaptive" else None
    return tl.Reweighted(optimizer, theta=0.3, reference=reference)


def trained(optimizer: tl.Proximal, params: list[nn.Parameter], weighting: str | None) -> tl.Proximal:
    control = None
    for step in range(4):
        if control is None:
            control = weigh(optimizer, params, weighting, step)
        for p in params:
            p.grad = 0.3 * torch.randn_like(p)
        optimizer.step()
    return optimizer


def rise_of(kind: str, optimizer: tl.Proximal) -> Rise:
    (group,) = optimizer.param_groups
    caps = {group["params"][0]: 0.4} if kind == "capped" else {}
    return growing(optimizer, group, 0.7) if kind == "growing" else rescaled(optimizer, group, caps)


def check(rise: Rise) -> None:
    """Compare what each factor keeps with the weights computed anew."""
    counts = []
    for factor in FACTORS:
        trial, expected = rise.at(factor), rise.reference(factor)
        assert trial.kept == count_kept(rise.penalty, rise.params, expected)
        for found, w in zip(trial.weights(), expected, strict=True):
            assert found.dtype == w.dtype
            assert torch.equal(found != 0, w != 0)
        counts.append(sum(trial.kept))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pairwise(suits, name=CONVEX, over=OVER, weighting=WEIGHTINGS, kind=KINDS)
def test_each_trial_is_as_if_computed_anew(name, over, weighting, kind):
    torch.manual_seed(0)
    if weighting is not None and not issubclass(CONVEX[name], tl.penalties.Separable):
        weighting = None
    params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]
    penalty = CONVEX[name](over=over)
    optimizer = trained(tl.ProxSGD(params, lr=0.2, penalty=penalty, lam=0.4, form="latent"), params, weighting)
    optimizer.param_groups[0]["lam_scales"] = [1.0, 0.5]
    rise = rise_of(kind, optimizer)
    closed = issubclass(CONVEX[name], tl.penalties.Separable) and over.of_weights and not over.spares
    assert rise.is_prepared == closed
    check(rise)


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_each_trial_of_units_is_as_if_computed_anew(weighting, kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    params = list(net.parameters())[:4]
    groups = tl.param_groups(net, tl.L1(over=tl.Units(net, torch.randn(3, 5).double())), lam=0.1)
    optimizer = tl.ProxAdam([group for group in groups if group["penalty"]], lr=0.05, form="latent")
    rise = rise_of(kind, trained(optimizer, params, weighting))
    assert rise.is_prepared
    check(rise)


def test_what_does_not_grow_or_is_not_a_number_is_kept_as_in_a_step():
    w = nn.Parameter(torch.tensor([0.0, 0.5, torch.nan, 0.2]))
    optimizer = tl.ProxSGD([w], lr=1.0, penalty=tl.L1(), lam=0.2, form="latent")
    (group,) = optimizer.param_groups
    for thresholds in (0.0, 0.2):  # at the second, one is exactly at its threshold
        group["thresholds"] = [thresholds]
        for rise in (growing(optimizer, group, 0.0), rescaled(optimizer, group, {})):
            for factor in (0.0, 1.0):
                expected = rise.reference(factor)
                assert rise.at(factor).kept == count_kept(tl.L1(), [w], expected)
