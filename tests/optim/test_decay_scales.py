"""Parameters of one group with other shares of its weight decay: the steps of groups with the decay of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl

DECAY = 0.3
SCALES = [1.0, 0.0, 0.5]
OPTIMIZERS: dict[str, Any] = {
    "sgd": (tl.ProxSGD, {"lr": 0.1, "momentum": 0.9}),
    "adam": (tl.ProxAdam, {"lr": 0.05}),
    "adamw": (tl.ProxAdamW, {"lr": 0.05}),
    "adamw fused": (tl.ProxAdamW, {"lr": 0.05, "fused": True}),
    "adamw without averaging": (tl.ProxAdamW, {"lr": 0.05, "averaging": False}),
    "adamw latent": (tl.ProxAdamW, {"lr": 0.05, "form": "latent"}),
    "adamw normal map": (tl.ProxAdamW, {"lr": 0.05, "form": "normal-map"}),
    "nadam": (tl.proximal(torch.optim.NAdam), {"lr": 0.05, "decoupled_weight_decay": True}),
    "rmsprop": (tl.proximal(torch.optim.RMSprop), {"lr": 0.01}),
}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(6, 4)) for _ in SCALES]


def trained(params: list[nn.Parameter], optimizer: tl.Proximal, *, reference: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    targets = [torch.randn(6, 4, generator=generator) for _ in params]
    for _ in range(12):
        optimizer.zero_grad()
        for p, target in zip(params, targets, strict=True):
            (p - target).square().mean().backward()
        for group in optimizer.param_groups:  # as schedulers do
            group["lr"] *= 0.8
            group["weight_decay"] *= 1.1
        optimizer._reference_step() if reference else optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_group_steps_as_groups_of_their_own_do(name: str) -> None:
    make, options = OPTIMIZERS[name]
    common = {"penalty": tl.L1(), "lam": 0.02}
    one, apart, by_formula = parameters(), parameters(), parameters()
    together = make([{"params": one, "weight_decay": DECAY, "decay_scales": SCALES, **common}], **options)
    groups = [{"params": [p], "weight_decay": DECAY * s, **common} for p, s in zip(apart, SCALES, strict=True)]
    found, wanted = trained(one, together), trained(apart, make(groups, **options))
    for p, q in zip(found, wanted, strict=True):
        assert torch.equal(p, q)
    whole = parameters()
    alike = trained(whole, make([{"params": whole, "weight_decay": DECAY, **common}], **options))
    assert not all(map(torch.equal, found, alike))
    reference = make([{"params": by_formula, "weight_decay": DECAY, "decay_scales": SCALES, **common}], **options)
    for p, q in zip(found, trained(by_formula, reference, reference=True), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_they_survive_a_checkpoint_and_are_not_shown() -> None:
    def made() -> tuple[list[nn.Parameter], tl.Proximal]:
        params = parameters()
        group = {"params": params, "weight_decay": DECAY, "decay_scales": SCALES, "penalty": tl.L1(), "lam": 0.02}
        return params, tl.ProxAdamW([group], lr=0.05)

    params, optimizer = made()
    trained(params, optimizer)
    _, other = made()
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["decay_scales"] == SCALES
    plain = torch.optim.AdamW([{"params": params, "weight_decay": DECAY}], lr=0.05)
    other.load_state_dict(plain.state_dict())
    assert other.param_groups[0]["decay_scales"] == SCALES
    assert "decay_scales" not in repr(other)


@pytest.mark.parametrize(
    ("make", "scales", "said"),
    [
        (tl.ProxAdamW, [1.0], "decay_scales must be a list of a number for each parameter; got"),
        (tl.ProxAdamW, [1.0, -1.0, 0.0], "decay_scales must be .* got -1.0"),
        (tl.proximal(torch.optim.Rprop), SCALES, "decay_scales: Rprop has no weight decay"),
    ],
)
def test_scales_that_cannot_be(make: Any, scales: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make([{"params": parameters(), "decay_scales": scales, "penalty": tl.L1(), "lam": 0.02}], lr=0.1)
