"""Where training in the latent form ends: at the solutions of reference solvers, and at its fixed points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl


def regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 20, generator=generator, dtype=torch.float64)
    coefficients = torch.zeros(20, dtype=torch.float64)
    coefficients[:4] = torch.tensor([2.0, -1.0, 0.5, 0.3])
    return x, x @ coefficients + 0.3 * torch.randn(120, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", [{"lr": 0.2}, {"lr": 0.05, "momentum": 0.9}], ids=["plain", "momentum"])
def test_descent_solves_the_lasso(options):
    from sklearn.linear_model import Lasso

    x, y = regression()
    w = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    optimizer = tl.ProxSGD([w], penalty=tl.L1(), lam=0.1, form="latent", **options)
    for _ in range(1500):
        optimizer.zero_grad()
        ((x @ w - y).square().mean() / 2).backward()
        optimizer.step()
    expected = Lasso(alpha=0.1, fit_intercept=False, tol=1e-13, max_iter=100_000).fit(x.numpy(), y.numpy()).coef_
    torch.testing.assert_close(w.detach(), torch.from_numpy(expected), rtol=0, atol=1e-9)
    assert torch.equal(w.detach() == 0, torch.from_numpy(expected) == 0)


def test_descent_solves_the_nuclear_norm_and_adam_accepts_it():
    target = torch.diag(torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64))
    w = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    penalty = tl.L1(over=tl.penalties.blocks.SingularValues())
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=penalty, lam=0.5, form="latent")
    for _ in range(300):
        w.grad = w.detach() - target
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.diag(torch.tensor([2.5, 0.5, 0.0], dtype=torch.float64)))
    tl.ProxAdam([w], penalty=penalty, lam=0.5, form="latent")
    with pytest.raises(ValueError, match="not weights"):
        optimizer.hold()


def test_a_weight_under_adam_rests_where_its_gradient_is_lambda_times_its_size():
    """The fixed points are those of a lasso weighted by the sizes of the gradients, which the certificate measures."""
    w = nn.Parameter(torch.tensor([1.0, 0.05, 0.6, -0.8], dtype=torch.float64))
    noise = torch.tensor([0.5, 0.5, 1.0, 0.1], dtype=torch.float64)
    optimizer = tl.ProxAdam([w], lr=0.01, betas=(0.9, 0.99), penalty=tl.L1(), lam=0.2, form="latent")
    centre = w.detach().clone()
    for t in range(1500):
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + t / 300)
        w.grad = w.detach() - centre + noise * (-1) ** t  # its size is that of the noise, and its mean is not
        optimizer.step()
    size = optimizer.state[w]["exp_avg_sq"].sqrt()
    expected = (centre.abs() - 0.2 * size).clamp_min(0) * centre.sign()
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=2e-3)
    assert (w == 0).tolist() == [False, True, False, False]
    w.grad = w.detach() - centre
    assert tl.stationarity(optimizer.penalised_groups()).max < 0.02  # of λ; of an ordinary lasso it is far off
    plain = [{key: value for key, value in group.items() if key != "scales"} for group in optimizer.penalised_groups()]
    assert tl.stationarity(plain).max > 0.4
