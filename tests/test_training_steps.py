"""How a step is computed: in parts, with a clipped gradient, in bfloat16; and the same again after a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

ROWS = (torch.randn(70, 5, generator=torch.Generator().manual_seed(0)), torch.arange(70) % 3)


def trained(epochs: int = 3, **plan: Any) -> tuple[list[Tensor], Trainer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-2), lr=0.02)
    trainer = Trainer(model, optimizer, nn.functional.cross_entropy, ROWS, Plan(epochs, batch_size=16, **plan))
    for _ in range(epochs):
        trainer.run_epoch()
    return [p.detach().clone() for p in model.parameters()], trainer


@pytest.mark.parametrize("parts", [2, 3, 16, 100])
def test_a_step_in_parts_is_the_same_step(parts: int) -> None:
    whole, _ = trained()
    for w, p in zip(whole, trained(parts=parts)[0], strict=True):
        torch.testing.assert_close(w, p, rtol=1e-4, atol=1e-5)


def test_the_norm_of_the_gradient_is_clipped() -> None:
    _, trainer = trained(clip=1e-3)
    norm = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-2)
    for w, p in zip(trained()[0], trained(clip=1e6)[0], strict=True):
        assert torch.equal(w, p)


def test_bfloat16_is_used_and_weights_stay_in_float32() -> None:
    seen = []
    model = nn.Linear(5, 3)
    model.register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy
    Trainer(model, optimizer, loss, ROWS, Plan(1, batch_size=16, precision="bf16")).run_epoch()
    assert set(seen) == {torch.bfloat16}
    assert model.weight.dtype == torch.float32
    close = zip(trained()[0], trained(precision="bf16")[0], strict=True)
    assert all((w - p).abs().max() < 0.1 for w, p in close)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"clip": 0.0}, "clip must be a number above 0"),
        ({"parts": 0}, "parts must be at least 1"),
    ],
)
def test_plans_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(1, **options)
