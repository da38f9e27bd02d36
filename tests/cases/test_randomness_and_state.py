"""Random numbers of any source, and state that a model keeps between calls: both models start from the same."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl


class Noisy(nn.Module):
    """A hidden layer that is multiplied by noise in training."""

    def __init__(self, noise: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.noise, self.first, self.last = noise, nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(h * self.noise(h) if self.training else h)


class Stateful(nn.Module):
    """Writes into a buffer, a counter, a list and a dictionary, and reads all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 3)
        self.register_buffer("mean", torch.zeros(8))
        self.calls, self.seen, self.masks = 0, [1.0], {}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(1.0)
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        mask = self.masks.setdefault(len(x), torch.ones(len(x), 1))
        return self.last(self.first((x - self.mean) * mask).relu()) * self.calls / len(self.seen)


def dead(model: nn.Module, units: int = 16) -> nn.Module:
    with torch.no_grad():
        model.first.weight[:units], model.first.bias[:units] = 0, 0
    return model.eval()


def states() -> list[Any]:
    _, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), keys.tolist(), rest]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


NOISE: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda h: torch.from_numpy(np.random.rand(len(h), 1)).to(h.dtype),
    "numpy, one": lambda h: float(np.random.uniform(0.5, 2)),
    "random": lambda h: random.random(),
    "random, chosen": lambda h: random.choice([0.5, 2.0, 4.0]),
    "torch": lambda h: torch.rand(len(h), 1),
    "torch, a batch's": lambda h: torch.empty(len(h), 1).bernoulli_(0.5) / 0.5,
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_in_training_keeps_no_unit(name: str):
    assert tl.compact(dead(Noisy(NOISE[name])), torch.randn(6, 8)).first.out_features == 16


def test_random_states_are_as_they_were():
    model, x = dead(Noisy(NOISE["numpy"])), torch.randn(6, 8)
    before = states()
    tl.compact(model, x, return_report=True)
    assert states() == before


@pytest.mark.parametrize("training", [False, True])
def test_state_between_calls_is_restored(training: bool):
    model, x = dead(Stateful()).train(training), torch.randn(6, 8)
    model(x)
    before, counts = copy.deepcopy(model.state_dict()), (model.calls, list(model.seen), list(model.masks))
    small, _ = tl.compact(model, x, return_report=True)
    assert small.first.out_features == 16
    assert (model.calls, model.seen, list(model.masks)) == counts
    assert (small.calls, small.seen, list(small.masks)) == counts
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for _ in range(3):  # and both go on alike
        assert torch.allclose(small(x), model(x), atol=1e-5)
    assert torch.equal(small.mean, model.mean)


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_model_that_draws_in_evaluation_leaves_the_states_as_they_were(constant: float):
    class Always(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu()) + 0.1 * torch.randn(len(x), 3)

    model = dead(Always(torch.rand_like))
    with torch.no_grad():
        model.first.bias[:16] = constant
    before = states()
    assert tl.compact(model, torch.randn(6, 8, generator=torch.Generator().manual_seed(1))).first.out_features == 16
    assert states() == before
