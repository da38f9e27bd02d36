"""A small training with controllers of λ, as a loop by hand: the reference for the loops of other libraries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import torchlasso as tl

EPOCHS, BATCHES, SIZE = 4, 10, 8
STEPS = EPOCHS * BATCHES
EXAMPLE = torch.zeros(2, 6)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(BATCHES * SIZE, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.stack([x[:, 0].abs(), x[:, 1], x[:, 0] - x[:, 1]], dim=1)


def optimizer_of(model: nn.Module, *, units: bool = False, example: Tensor = EXAMPLE) -> tl.Proximal:
    penalty = tl.L1(over=tl.Units(model, example)) if units else tl.L1()
    return tl.ProxAdamW(tl.param_groups(model, penalty, lam=0.02), lr=0.05, weight_decay=0.01)


def controllers(optimizer: tl.Proximal, steps: int) -> Iterable[tl.LambdaController]:
    """Two with a state, one of them with tensors of the size of the weights."""
    yield tl.TargetSparsity(optimizer, 0.6, steps=steps, tolerance=1.0)
    yield tl.Reweighted(optimizer, theta=0.2)


def loop(*, units: bool = False, accumulate: int = 1, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Train by hand, with λ controlled after each step and before the scheduler."""
    model = network().to(dtype)
    optimizer = optimizer_of(model, units=units)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    controls = list(controllers(optimizer, STEPS // accumulate))
    for _ in range(EPOCHS):
        for index, (x, y) in enumerate(loader()):
            (nn.functional.mse_loss(model(x.to(dtype)), y.to(dtype)) / accumulate).backward()
            if (index + 1) % accumulate == 0:
                optimizer.step()
                for control in controls:
                    control.step()
                scheduler.step()
                optimizer.zero_grad()
    return model


def identical_weights(one: nn.Module, other: nn.Module) -> None:
    """Assert that two models have the same weights, to the last bit, and that some are zero."""
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert any((p == 0).any() for p in one.parameters())
    assert any(p.any() for p in one.parameters())


def loader() -> DataLoader:
    return DataLoader(TensorDataset(*rows()), batch_size=SIZE)


class ResumableLoader:
    """The batches of rows in their order, from where an earlier loader was when its state was taken."""

    def __init__(self, size: int = SIZE, parts: Sequence[Tensor] = rows()) -> None:
        self.batches, self.done, self.first = list(zip(*(part.split(size) for part in parts), strict=True)), 0, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        self.done = self.first
        while self.done < len(self):
            self.done += 1
            if self.done == len(self):
                self.first = 0  # the next epoch is whole
            yield self.batches[self.done - 1]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["done"] % len(self)
