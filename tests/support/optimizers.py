"""The optimizers and the small training that the tests of the optimizers' contract share."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import torchlasso as tl

optim = torch.optim
# name -> (torch optimizer, options)
CASES = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD momentum": (optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "SGD dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "dampening": 0.5}),
    "SGD Nesterov": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "Adam": (optim.Adam, {"lr": 0.02}),
    "Adam amsgrad": (optim.Adam, {"lr": 0.02, "amsgrad": True}),
    "AdamW": (optim.AdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "NAdam": (optim.NAdam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": (optim.RAdam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
    "Adafactor": (optim.Adafactor, {"lr": 0.5}),
    "RMSprop": (optim.RMSprop, {"lr": 0.02}),
    "RMSprop centred momentum": (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.8}),
    "Adamax": (optim.Adamax, {"lr": 0.02}),
}
EVERY = pytest.mark.parametrize("case", CASES)
FUSED = ["SGD momentum", "Adam", "AdamW", "Adagrad"]
STEPS = 30
LAM = 0.1


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def build(case: str, model: nn.Module, *, lam: float = LAM, averaging: bool = True, **options):
    base, defaults = CASES[case]
    groups = tl.param_groups(model, tl.L1(), lam=lam)
    return tl.proximal(base)(groups, averaging=averaging, **{**defaults, **options})


def build_plain(case: str, model: nn.Module, **options) -> optim.Optimizer:
    base, defaults = CASES[case]
    params = [{"params": group["params"]} for group in tl.param_groups(model, tl.L1(), lam=0.0)]
    return base(params, **{**defaults, **options})


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step % 3)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)


def backward(model: nn.Module, step: int, sign: float = 1.0) -> None:
    x, y = batch(step)
    model.zero_grad()
    (sign * (model(x) - y).square().mean()).backward()


def train(model, optimizer, steps=range(STEPS), scheduler=None, *, sign: float = 1.0, silent=lambda step: ()) -> None:
    for step in steps:
        backward(model, step, sign)
        for p in silent(step):
            p.grad = None
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def identical(one: nn.Module, other: nn.Module) -> bool:
    return torch.equal(flat(one), flat(other))


def cosine(optimizer) -> schedulers.LRScheduler:
    return schedulers.CosineAnnealingLR(optimizer, STEPS)
