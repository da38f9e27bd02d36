"""A number of blocks under optimizers without a metric, and under one whose τ follows from more than its state."""

import pytest
import torch
from torch import nn

import torchlasso as tl

STEPS = 150
# name -> (optimizer, options)
CASES = {
    "Muon": (torch.optim.Muon, {"lr": 0.02, "weight_decay": 0.0}),
    "Adafactor": (torch.optim.Adafactor, {"lr": 0.05}),
    "Adafactor, latent": (torch.optim.Adafactor, {"lr": 0.05, "form": "latent"}),
    "Adam, normal map": (torch.optim.Adam, {"lr": 0.01, "form": "normal-map"}),
    "SGD, normal map": (torch.optim.SGD, {"lr": 0.05, "form": "normal-map"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_number_of_blocks_is_met(case):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16, bias=False), nn.ReLU(), nn.Linear(16, 1, bias=False))
    x = torch.randn(128, 12)
    y = torch.relu(x @ torch.randn(12, 10) / 3).sum(dim=1, keepdim=True)
    base, options = CASES[case]
    groups = tl.param_groups(model, [tl.Rule("0.*", tl.L1(over=tl.Rows()))], lam=1e-3)
    optimizer = tl.proximal(base)(groups, **options)
    control = tl.TargetCount(optimizer, 6, steps=STEPS)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        control.step()
    assert model[0].weight.any(dim=1).sum() == 6
    assert control.missed is None
