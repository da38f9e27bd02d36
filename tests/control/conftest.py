"""A training on handwritten digits, small but real: mini-batches, momentum or Adam, a cosine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchlasso as tl

OPTIMIZERS = {"ProxAdam": (tl.ProxAdam, {"lr": 0.01}), "ProxSGD": (tl.ProxSGD, {"lr": 0.1, "momentum": 0.9})}
BATCH = 64
Make = Callable[[tl.Proximal], tl.LambdaController]


@dataclass
class Trained:
    """The result of a training.

    Attributes:
        control: the controller.
        lams: λ of the penalised groups after every step.
        sparsity: the share of zeros in all penalised weights, and in each group.
        weights: the penalised parameters.
        accuracy: on the digits that it was trained on.
    """

    control: tl.LambdaController
    lams: list[list[float]]
    sparsity: float
    sparsities: list[float]
    weights: list[Tensor]
    accuracy: float

    @property
    def kept(self) -> list[int]:
        """Count the nonzero weights of each penalised parameter."""
        return [int((w != 0).sum()) for w in self.weights]


class Digits:
    """The digits, and networks that are trained on them."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        self.x, self.y = torch.from_numpy(x).float() / 16, torch.from_numpy(y).long()

    def train(
        self,
        make: Make,
        *,
        lam: float,
        steps: int,
        name: str = "ProxAdam",
        hidden: int = 32,
        penalty: tl.Penalty | Sequence[tl.Rule] = tl.L1(),  # noqa: B008 (it is frozen)
    ) -> Trained:
        """Train a network with one hidden layer, with the controller that ``make`` makes."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))
        cls, options = OPTIMIZERS[name]
        optimizer = cls(tl.param_groups(model, penalty, lam=lam), **options)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        control = make(optimizer)
        order = torch.Generator().manual_seed(0)
        lams = []
        for _ in range(steps):
            rows = torch.randint(len(self.x), (BATCH,), generator=order)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(self.x[rows]), self.y[rows]).backward()
            optimizer.step()
            scheduler.step()
            control.step()
            lams.append(control.lam)
        groups = [[p.detach() for p in group["params"]] for group in optimizer.penalised_groups()]
        zeros = [[int((p == 0).sum()) for p in group] for group in groups]
        sizes = [[p.numel() for p in group] for group in groups]
        return Trained(
            control,
            lams,
            sum(map(sum, zeros)) / sum(map(sum, sizes)),
            [sum(some) / sum(of) for some, of in zip(zeros, sizes, strict=True)],
            [p for group in groups for p in group],
            (model(self.x).argmax(dim=1) == self.y).double().mean().item(),
        )


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits()
