"""Whole models in the latent form: frozen parameters, and models that shrink while they train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.optim.latents import latent_weights


def test_a_frozen_parameter_of_a_unit_stays_and_the_rest_goes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    net[0].bias.requires_grad_(False)
    bias = net[0].bias.detach().clone()
    x = torch.randn(32, 4)
    groups = tl.param_groups(net, tl.L1(over=tl.Units(net, x)), lam=0.5)
    optimizer = tl.ProxAdam(groups, lr=0.01, form="latent")
    for _ in range(100):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert torch.equal(net[0].bias, bias)
    assert net[0].weight.abs().max() < 0.5


def test_shrinking_a_model_changes_no_step():
    def trained(shrink: bool):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 2)).double()
        x = torch.randn(64, 6, dtype=torch.float64)
        y = x[:, :2].abs()
        groups = tl.param_groups(net, tl.L1(), lam=0.4)
        optimizer = tl.ProxAdam(groups, lr=0.01, form="latent")
        control = tl.Reweighted(optimizer, theta=0.1)
        for t in range(120):
            rows = torch.randperm(64, generator=torch.Generator().manual_seed(t))[:16]
            optimizer.zero_grad()
            (net(x[rows]) - y[rows]).square().mean().backward()
            optimizer.step()
            control.step()
            if t == 60 and shrink:
                tl.shrink_(net, optimizer, x[:2], controllers=[control])
        return net, net(x).detach()

    (whole, expected), (small, found) = trained(shrink=False), trained(shrink=True)
    assert small[0].out_features < whole[0].out_features
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["rows", "units"])
def test_shrinking_a_model_keeps_the_threshold_of_each_block(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 2)).double()
    x = torch.randn(64, 6, dtype=torch.float64)
    penalty = tl.L1(over=tl.Rows() if kind == "rows" else tl.Units(net, x[:2]))
    optimizer = tl.ProxAdam(tl.param_groups(net, penalty, lam=0.3), lr=0.01, form="latent")
    control = tl.Reweighted(optimizer, theta=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (net(x) - x[:, :2].abs()).square().mean().backward()
        optimizer.step()
        control.step()
    with torch.no_grad():  # so that nothing reads what goes, and no norm changes
        dead = ~net[0].weight.any(dim=1)
        dead[:3] = True
        for tensor in (net[0].weight, net[0].bias, optimizer.state[net[0].weight]["latent"]):
            tensor[dead] = 0.0
        for tensor in (net[2].weight, optimizer.state[net[2].weight]["latent"]):
            tensor[:, dead] = 0.0
        if kind == "units":
            optimizer.state[net[0].bias]["latent"][dead] = 0.0
    (group,) = [group for group in optimizer.param_groups if net[0].weight in set(group["params"])]
    expected = [w.clone() for w in latent_weights(optimizer, group)]
    tl.shrink_(net, optimizer, x[:2], controllers=[control])
    assert net[0].out_features <= 21
    found = latent_weights(optimizer, group)
    assert found[0].shape == net[0].weight.shape
    for w, old in zip(found, expected, strict=True):
        torch.testing.assert_close(w[w != 0], old[old != 0])
    optimizer.step()
