"""Complex weights: magnitudes |w|, under every optimizer, through saving and reports."""

import pytest
import torch
from torch import nn

import torchlasso as tl

FAST = {"betas": (0.7, 0.9)}  # a short memory suits gradients without noise
# name -> (class of the proximal optimizer, options)
CASES = {
    "SGD": (tl.ProxSGD, {"lr": 0.5}),
    "SGD momentum": (tl.ProxSGD, {"lr": 0.2, "momentum": 0.7}),
    "Adam": (tl.ProxAdam, {"lr": 0.1, **FAST}),
    "RMSprop": (tl.proximal(torch.optim.RMSprop), {"lr": 0.05, "alpha": 0.9}),
    "Adagrad": (tl.proximal(torch.optim.Adagrad), {"lr": 0.3}),
    "NAdam": (tl.proximal(torch.optim.NAdam), {"lr": 0.1, **FAST}),
    "RAdam": (tl.proximal(torch.optim.RAdam), {"lr": 0.15, **FAST}),
    "Adamax": (tl.proximal(torch.optim.Adamax), {"lr": 0.1, **FAST}),
    "normal map": (tl.ProxAdam, {"lr": 0.1, "form": "normal-map", **FAST}),
}
BLOCKS = {"elements": tl.Elements(), "rows": tl.Rows(weighted=False)}


def target() -> torch.Tensor:
    torch.manual_seed(0)
    z = torch.randn(6, 3, dtype=torch.complex128)
    z[:3] *= 0.2
    return z


def trained(case: str, penalty: tl.Penalty, lam: float, steps: int = 200) -> nn.Parameter:
    """Fit weights to a target, with a curvature of its own for each."""
    cls, options = CASES[case]
    w, z = nn.Parameter(torch.zeros(6, 3, dtype=torch.complex128)), target()
    optimizer = cls([w], penalty=penalty, lam=lam, **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)
    for _ in range(steps):
        optimizer.zero_grad()
        ((w - z).abs().square().sum() / 2).backward()
        optimizer.step()
        scheduler.step()
    optimizer.zero_grad()
    ((w - z).abs().square().sum() / 2).backward()
    return w


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("over", BLOCKS)
def test_the_limit_is_the_radial_soft_threshold(case, over):
    penalty, z = tl.L1(over=BLOCKS[over]), target()
    w = trained(case, penalty, 0.4)
    sizes = z.abs() if over == "elements" else z.abs().square().sum(dim=1, keepdim=True).sqrt()
    expected = z * (1 - 0.4 / sizes).clamp_min(0)
    torch.testing.assert_close(w.detach(), expected, atol=1e-4, rtol=0)
    assert torch.equal(w.detach() == 0, expected == 0)
    assert 0 < (w == 0).sum() < w.numel()
    groups = [{"params": [w], "penalty": penalty, "lam": 0.4}]
    assert tl.stationarity(groups).max < 1e-3
    torch.testing.assert_close(tl.penalty(groups), 0.4 * (w.abs() if over == "elements" else w.norm(dim=1)).sum())


def test_singular_values_of_a_complex_matrix():
    penalty, z = tl.L1(over=tl.SingularValues()), target()
    w = trained("SGD", penalty, 0.8)
    u, s, vh = torch.linalg.svd(z, full_matrices=False)
    torch.testing.assert_close(w.detach(), (u * (s - 0.8).clamp_min(0)) @ vh)
    groups = [{"params": [w], "penalty": penalty, "lam": 0.8}]
    assert tl.stationarity(groups).max < 1e-6


@pytest.mark.slow
def test_lambda_max_is_the_least_that_gives_zero():
    w = nn.Parameter(torch.zeros(6, 3, dtype=torch.complex128))
    w.grad = -target()
    largest = tl.lambda_max([{"params": [w], "penalty": tl.L1(), "lam": 1.0}])
    assert largest == pytest.approx(target().abs().max().item())
    assert not trained("Adam", tl.L1(), largest * 1.001).any()
    assert trained("Adam", tl.L1(), largest * 0.9).any()


class Spectral(nn.Module):
    """A convolution as a product of Fourier coefficients, as Fourier neural operators have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, dtype=torch.complex64) / 3)
        self.out = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=16))


@pytest.mark.slow
def test_a_network_trains_and_its_zeros_are_reported_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model, x = Spectral(), torch.randn(64, 16)
    y = torch.fft.irfft(torch.fft.rfft(x)[:, 2:3] * torch.nn.functional.one_hot(torch.tensor(2), 9), n=16)[:, :1]
    groups = tl.param_groups(model, tl.Rule("weight", tl.L1(), everything=True), lam=0.01)
    optimizer = tl.ProxAdam(groups, lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
    zeros = int((model.weight == 0).sum())
    assert 0 < zeros < 9
    report = tl.report(model, optimizer.penalised_groups())
    assert report.nonzero == 9 - zeros
    tl.save(model, tmp_path / "model.tl")
    other = Spectral()
    tl.load(tmp_path / "model.tl", into=other)
    assert torch.equal(other.weight, model.weight)


@pytest.mark.parametrize("penalty", [tl.MCP(), tl.SCAD(), tl.LogSum(), tl.LHalf(), tl.ElasticNet()], ids=str)
def test_every_separable_penalty_keeps_the_phase(penalty):
    z = target()
    u = penalty.prox(z, 0.3, 1.0)
    torch.testing.assert_close(u.abs(), penalty.prox(z.abs(), 0.3, 1.0))
    alive = u != 0
    torch.testing.assert_close(u[alive].angle(), z[alive].angle())
