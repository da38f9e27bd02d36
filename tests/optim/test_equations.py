"""The equations in the docstrings of the optimizers, written out in plain Python for one weight under L1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import torchlasso as tl

LAM = 0.3
RATES = [0.05 * (0.9 ** max(0, t - 15)) for t in range(40)]
GRADIENTS = [math.sin(1.7 * t) + 0.3 * math.cos(0.4 * t) for t in range(len(RATES))]


def soft(z: float, threshold: float) -> float:
    return math.copysign(max(abs(z) - threshold, 0.0), z)


def by_torchlasso(cls: type[tl.Proximal], **options: object) -> list[float]:
    w, found = nn.Parameter(torch.tensor([0.5], dtype=torch.float64)), []
    optimizer = cls([w], lr=RATES[0], penalty=tl.L1(), lam=LAM, **options)
    for lr, g in zip(RATES, GRADIENTS, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        found.append(w.item())
    return found


@pytest.mark.parametrize("averaging", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd(nesterov: bool, averaging: bool) -> None:
    d, mu, decay, w, expected = 0.0 if nesterov else 0.2, 0.8, 0.1, 0.5, []
    b = gain = constant = None
    for lr, g in zip(RATES, GRADIENTS, strict=True):
        own = 1 - (1 - mu) * (lr / RATES[0]) ** 2 if averaging else mu
        g = g + decay * w
        b = g if b is None else own * b + (1 - d) * g
        gain = 1.0 if gain is None else own * gain + (1 - d)
        constant = 1.0 if constant is None else mu * constant + (1 - d)  # G, had μ never changed
        # the rate for which τ is the same as with μ
        tau = lr * (1 + mu * constant if nesterov else constant)
        rate = tau / (1 + own * gain if nesterov else gain)
        w = soft(w - rate * (g + own * b if nesterov else b), tau * LAM)
        expected.append(w)
    options = {"momentum": mu, "dampening": d, "nesterov": nesterov, "weight_decay": decay, "averaging": averaging}
    assert by_torchlasso(tl.ProxSGD, **options) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("averaging", [True, False])
@pytest.mark.parametrize("amsgrad", [True, False])
@pytest.mark.parametrize("cls", [tl.ProxAdam, tl.ProxAdamW])
def test_adam_and_adamw(cls: type[tl.Proximal], amsgrad: bool, averaging: bool) -> None:
    first, second, eps, decay = 0.8, 0.95, 1e-8, 0.1
    w, m, v, largest, gain, expected = 0.5, 0.0, 0.0, 0.0, 0.0, []
    for t, (lr, g) in enumerate(zip(RATES, GRADIENTS, strict=True), start=1):
        own = 1 - (1 - first) * (lr / RATES[0]) ** 2 if averaging else first
        if cls is tl.ProxAdamW:
            w = (1 - lr * decay) * w
        else:
            g = g + decay * w
        m = own * m + (1 - own) * g
        v = second * v + (1 - second) * g * g
        largest = max(largest, v) if amsgrad else v
        gain = own * gain + (1 - own)
        d = math.sqrt(largest / (1 - second**t)) + eps
        w = soft(w - lr * (m / gain) / d, LAM * lr / d)
        expected.append(w)
    options = {"betas": (first, second), "weight_decay": decay, "amsgrad": amsgrad, "averaging": averaging}
    assert by_torchlasso(cls, **options) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert any(expected)
    assert not all(expected)
