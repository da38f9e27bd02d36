"""Distillation: the value and the gradient of its term against formulas written by hand, and invalid arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchlasso.training.distillation import Distillation

pytestmark = pytest.mark.slow

ROWS = torch.tensor([4, 0, 7, 2, 2])


def logits(n: int, seed: int) -> Tensor:
    return 3 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


@pytest.mark.parametrize(("strength", "temperature"), [(1.0, 2.0), (0.3, 1.0), (2.5, 5.0)])
def test_for_classes_it_is_the_divergence_of_the_softened_probabilities(strength: float, temperature: float) -> None:
    teacher, own = logits(9, 0), logits(5, 1).requires_grad_()
    term = Distillation(teacher, classes=True, strength=strength, temperature=temperature)(own, ROWS)
    term.backward()
    value, gradient = 0.0, np.zeros((5, 4))
    for i, row in enumerate(ROWS.tolist()):
        p = softmax(teacher[row].numpy() / temperature)
        q = softmax(own[i].detach().numpy() / temperature)
        value += float((p * np.log(p / q)).sum()) / 5
        gradient[i] = strength * temperature * (q - p) / 5
    assert term.item() == pytest.approx(strength * temperature**2 * value, rel=1e-12)
    assert term.item() > 0.1
    assert own.grad is not None
    assert np.allclose(own.grad.numpy(), gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_for_numbers_it_is_the_mean_squared_difference(strength: float) -> None:
    teacher, own = logits(9, 2), logits(5, 3).requires_grad_()
    term = Distillation(teacher, classes=False, strength=strength, temperature=7.0)(own, ROWS)
    term.backward()
    difference = own.detach().numpy() - teacher[ROWS].numpy()
    assert term.item() == pytest.approx(strength * (difference**2).mean(), rel=1e-12)
    assert own.grad is not None
    assert np.allclose(own.grad.numpy(), strength * 2 * difference / difference.size, rtol=1e-12)


@pytest.mark.parametrize("classes", [True, False])
def test_it_is_zero_with_no_gradient_where_the_outputs_are_the_teacher_s(classes: bool) -> None:
    teacher = logits(9, 0)
    own = teacher[ROWS].clone().requires_grad_()
    term = Distillation(teacher, classes=classes)(own, ROWS)
    term.backward()
    assert term.item() == pytest.approx(0, abs=1e-15)
    assert own.grad is not None
    assert own.grad.abs().max().item() == pytest.approx(0, abs=1e-15)


def test_a_constant_added_to_all_logits_of_a_row_has_no_effect() -> None:
    term = Distillation(logits(9, 0), classes=True)
    own = logits(5, 1)
    shifted = own + torch.arange(5.0, dtype=torch.float64)[:, None]
    assert term(shifted, ROWS).item() == pytest.approx(term(own, ROWS).item(), rel=1e-12)


def test_at_a_high_temperature_it_is_the_squared_difference_of_the_logits() -> None:
    """Its limit is strength / (2·classes) times the squared difference of the centred logits."""
    teacher, own = logits(9, 0), logits(5, 1)
    difference = (own - own.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))[ROWS]
    term = Distillation(teacher, classes=True, temperature=1e5)(own, ROWS)
    assert term.item() == pytest.approx((difference**2).sum().item() / (2 * 4 * 5), rel=1e-3)


def test_sure_logits_stay_finite() -> None:
    teacher = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    own = torch.tensor([[-1e4, 1e4], [-1e4, 1e4]], requires_grad=True)
    term = Distillation(teacher, classes=True)(own, torch.tensor([0, 1]))
    term.backward()
    assert math.isfinite(term.item())
    assert own.grad is not None
    assert bool(own.grad.isfinite().all())


def test_a_model_learns_from_it_alone() -> None:
    torch.manual_seed(0)
    x, teacher, own = torch.randn(60, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    with torch.no_grad():
        term = Distillation(teacher(x), classes=True)
    optimizer = torch.optim.Adam(own.parameters(), lr=0.05)
    for _ in range(200):
        rows = torch.randperm(60)[:20]
        optimizer.zero_grad()
        term(own(x[rows]), rows).backward()
        optimizer.step()
    with torch.no_grad():
        assert torch.allclose(own(x).softmax(1), teacher(x).softmax(1), atol=0.01)
    assert not term.outputs.requires_grad


@pytest.mark.parametrize("name", ["strength", "temperature"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_a_strength_or_a_temperature_that_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} of the distillation must .* got {value!r}$"):
        Distillation(torch.zeros(2, 2), classes=True, **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^an output of the teacher is infinite or NaN$"):
        Distillation(torch.tensor([[0.0, 1.0], [value, 0.0]]), classes=True)
