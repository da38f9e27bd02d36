"""Models with complex weights become smaller: layers on the modes of a Fourier transform, and complex layers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl

pytestmark = pytest.mark.slow


class Spectral(nn.Module):
    """The layer of a Fourier neural operator: a complex matrix for each of the lowest modes (Li et al. 2021)."""

    def __init__(self, inputs: int, outputs: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(inputs, outputs, modes, dtype=torch.cfloat) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x)[..., : self.modes]
        return torch.fft.irfft(torch.einsum("bim,iom->bom", modes, self.weight), n=x.shape[-1])


class Operator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.spectral, self.mix = nn.Conv1d(2, 8, 1), Spectral(8, 8, 4), nn.Conv1d(8, 8, 1)
        self.head = nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        out: Tensor = self.head(torch.relu(self.spectral(x) + self.mix(x)))
        return out


class Filtered(nn.Module):
    """Each channel is multiplied by complex numbers, mode by mode, as in a global filter network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.filter = nn.Parameter(torch.randn(5, 8, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(self.first(x), dim=1) * self.filter
        out: Tensor = self.last(torch.fft.irfft(modes, n=x.shape[1], dim=1))
        return out


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8, dtype=torch.cfloat), nn.Linear(8, 2, dtype=torch.cfloat)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x)).abs()
        return out


# a model, its inputs, the parameter whose dimension is the number of its hidden channels, and this dimension
MODELS: dict[str, tuple[type[nn.Module], Tensor, str, int]] = {
    "operator": (Operator, torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(0)), "spectral.weight", 1),
    "filter": (Filtered, torch.randn(16, 8, 4, generator=torch.Generator().manual_seed(0)), "filter", 1),
    "layers": (
        Layers,
        torch.randn(16, 4, dtype=torch.cfloat, generator=torch.Generator().manual_seed(0)),
        "last.weight",
        1,
    ),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x, *_ = MODELS[name]
    return model(), x


def width(model: nn.Module, name: str) -> int:
    return dict(model.named_parameters())[MODELS[name][2]].shape[MODELS[name][3]]


@pytest.mark.parametrize("over", ["units", "rows"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_smaller_while_it_trains_and_after_it(name: str, over: str, tmp_path: Path) -> None:
    model, x = made(name)
    units = tl.Units(model, x[:2]) if over == "units" else tl.Rows()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units), lam=0.02), lr=0.02)
    wanted = x.abs().mean().expand_as(model(x))
    before, sizes = width(model, name), []
    for step in range(120):
        optimizer.zero_grad()
        (model(x) - wanted).square().mean().backward()
        optimizer.step()
        if step == 80:
            outputs = model(x).detach()
            tl.shrink_(model, optimizer, x[:2])
            torch.testing.assert_close(model(x).detach(), outputs)
            sizes.append(width(model, name))
    assert sizes[0] < before
    small = tl.compact(model, x[:2])
    torch.testing.assert_close(small(x), model(x))
    assert width(small, name) <= sizes[0]
    tl.save(small, tmp_path / "small.safetensors")
    again, _ = made(name)
    tl.load(tmp_path / "small.safetensors", into=again)
    torch.testing.assert_close(again(x), small(x), rtol=0, atol=0)
    assert any(p.is_complex() for p in again.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_an_imaginary_part_keeps_a_unit(name: str) -> None:
    """A weight whose real part alone is zero is not zero."""
    model, x = made(name)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_complex():
                p.real.zero_()
    assert width(tl.compact(copy.deepcopy(model), x[:2]), name) == width(model, name)
