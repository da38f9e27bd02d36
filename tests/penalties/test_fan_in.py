"""A constant fan-in: as many weights for each output, the dearest ones, and what training ends with."""

import math

import pytest
import torch
from torch import nn

import torchlasso as tl


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(("shape", "dim"), [((6, 30), 0), ((5, 4, 3, 3), 0), ((4, 5, 3, 3), 1)])
def test_a_large_strength_leaves_as_many_of_each_output_as_they_were(shape, dim, share) -> None:
    torch.manual_seed(0)
    w = torch.randn(shape)
    u = tl.L1(over=tl.FanIn(share, dim=dim)).prox(w, 1e6, 1.0)
    inputs = w.numel() // shape[dim]
    for before, after in zip(w.unbind(dim), u.unbind(dim), strict=True):
        kept = before.abs().flatten().topk(max(1, math.ceil(share * inputs - 1e-9))).indices
        assert torch.equal(after.flatten().nonzero()[:, 0], kept.sort().values)
        assert torch.equal(after.flatten()[kept], before.flatten()[kept])


def test_it_is_nm_where_a_run_is_the_whole_of_an_output() -> None:
    torch.manual_seed(0)
    w, step = torch.randn(8, 12, dtype=torch.float64), torch.rand(8, 12, dtype=torch.float64) + 0.1
    for tau in (0.7, step):
        ours, other = (tl.LogSum(over=over) for over in (tl.FanIn(0.25), tl.NM(3, 12)))
        assert torch.equal(ours.prox(w, 0.4, tau), other.prox(w, 0.4, tau))
        torch.testing.assert_close(ours.value(w, 0.4), other.value(w, 0.4))
        zeros, grad = torch.zeros_like(w), torch.randn_like(w)
        assert torch.equal(ours.subdiff_distance(zeros, grad, 0.4), other.subdiff_distance(zeros, grad, 0.4))


def test_ties_leave_no_more() -> None:
    assert tl.L1(over=tl.FanIn(0.5)).prox(torch.ones(3, 4), 1e6, 1.0).count_nonzero(dim=1).tolist() == [2, 2, 2]


def test_outputs_of_a_layer_are_known() -> None:
    assert tl.L1(over=tl.FanIn()).fit(nn.ConvTranspose2d(8, 4, 3), "weight").over == tl.FanIn(dim=1)
    assert tl.L1(over=tl.FanIn()).fit(nn.Conv2d(8, 4, 3), "weight").over == tl.FanIn()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tl.FanIn(1), "share must be a number above 0 and below 1; got 1"),
        (lambda: tl.FanIn(0.0), "share must be a number above 0"),
        (lambda: tl.FanIn("half"), "share must be a number above 0"),
        (lambda: tl.FanIn(float("nan")), "share must be a number above 0"),
        (lambda: tl.FanIn(0.1, dim=-1), "dim must be a whole number of at least 0"),
        (lambda: tl.L1(over=tl.FanIn()).prox(torch.ones(4), 1.0, 1.0), "at least 2 dimensions"),
        (lambda: tl.SparseGroup(over=tl.FanIn()).value(torch.ones(4, 4), 1.0), "has no groups"),
    ],
)
def test_impossible_options_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("optimizer", [tl.ProxAdamW, tl.ProxSGD], ids=lambda cls: cls.__name__)
def test_training_ends_with_a_constant_fan_in(optimizer: type[tl.Proximal]) -> None:
    torch.manual_seed(0)
    x, truth = torch.randn(400, 16), torch.zeros(3, 16)
    for output, inputs in enumerate(([0, 5, 11, 15], [1, 2, 3, 4], [0, 7, 8, 12])):
        truth[output, inputs] = torch.tensor([1.0, -2.0, 1.5, 0.7])
    y = x @ truth.T + 0.1 * torch.randn(400, 3)
    layer = nn.Linear(16, 3)
    rate = 0.3 if optimizer is tl.ProxSGD else 0.02
    ours = optimizer(tl.param_groups(layer, tl.L1(over=tl.FanIn(0.25)), lam=0.5), lr=rate, weight_decay=0.0)
    warmup = tl.Warmup(ours, steps=200)
    for _ in range(400):
        ours.zero_grad()
        (layer(x) - y).square().mean().backward()
        ours.step()
        warmup.step()
    assert torch.equal(layer.weight != 0, truth != 0)
    torch.testing.assert_close(layer.weight.detach(), truth, atol=0.05, rtol=0)  # kept weights are not shrunk
