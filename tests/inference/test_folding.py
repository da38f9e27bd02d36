"""Batch norms folded into the layers before them: equal outputs, and only where nothing else reads the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torchlasso import models
from torchlasso.inference.folding import fold_batch_norms

IMAGES, ROWS, LINES = torch.randn(4, 3, 8, 8), torch.randn(5, 6), torch.randn(4, 3, 9)


def trained(model: nn.Module, x: Tensor) -> nn.Module:
    """Give the batch norms statistics and scales that are not those of a new one."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    model.train()(x * 2 + 1)
    return model.eval()


class Read(nn.Module):
    """A convolution whose outputs something besides the batch norm reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(x)
        return self.norm(found) + found


class Twice(nn.Module):
    """A batch norm after each of two convolutions, which are the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(self.norm(self.layer(x))))


class OfSteps(nn.Module):
    """A linear layer for each step of a sequence: the second dimension, which is normalised, is not its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(9, 7), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda module, given, found: found + 1)
    return model


def parametrized() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("build", "x", "count"),
    [
        (lambda: models.build("resnet-20", (3, 8, 8), 10), IMAGES, 21),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3), nn.BatchNorm1d(3)), ROWS, 2),
        (lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False)), ROWS, 1),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1)), LINES, 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, groups=1), nn.BatchNorm2d(4)), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), IMAGES, 0),
        (Read, IMAGES, 0),
        (Twice, IMAGES, 0),
        (OfSteps, LINES, 0),
        (hooked, IMAGES, 0),
        (parametrized, IMAGES, 0),
    ],
)
def test_outputs_stay(build: Callable[[], nn.Module], x: Tensor, count: int) -> None:
    model = trained(build().double(), x.double())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded, found = fold_batch_norms(model, x.double())
    assert found == count
    assert sum(isinstance(module, nn.Identity) for module in folded.modules()) >= count
    torch.testing.assert_close(folded(x.double()), model(x.double()), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
