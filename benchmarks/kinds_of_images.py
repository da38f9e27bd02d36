"""Convolutional networks for images of 8 × 8 pixels, in sizes that train in seconds."""

from __future__ import annotations

import math

import tasks
import torch
from networks import conv_norm
from torch import Tensor, nn
from torch.nn import functional as F


def pooled(*stages: nn.Module, channels: int) -> nn.Sequential:
    """Build a network for images from its stages: the mean over all places, then a linear layer."""
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, tasks.CLASSES))


class LocallyConnected(nn.Module):
    """A layer with weights of its own at every place, from N(0, 1), and a linear layer."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(36, 9, channels))
        self.head = nn.Linear(36 * channels, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 3).mT  # (rows, 36, 9)
        local: Tensor = torch.einsum("rpi,pio->rpo", patches, self.weight).relu().flatten(1)
        return self.head(local)


class Residual(nn.Module):
    """An input plus a function of it."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.inside = nn.Sequential(*inside)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


def separable(width: int = 16) -> nn.Sequential:
    """Build a network of inverted bottlenecks with depthwise convolutions (Sandler et al. 2018)."""
    inner = 4 * width
    blocks = [
        Residual(
            conv_norm(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(), conv_norm(inner, width, 1),
        )
        for _ in range(3)
    ]  # fmt: skip
    return pooled(conv_norm(1, width, 3, 2), nn.ReLU(), *blocks, channels=width)


class Grown(nn.Module):
    """An input with further channels that are computed from it."""

    def __init__(self, inputs: int, further: int) -> None:
        super().__init__()
        self.further = nn.Sequential(conv_norm(inputs, further, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.further(x)], 1)


def densenet() -> nn.Sequential:
    """Build a network whose layers read all layers before them (Huang et al. 2017)."""
    blocks = [Grown(12 + 8 * layer, 8) for layer in range(6)]
    return pooled(conv_norm(1, 12, 3, 2), nn.ReLU(), *blocks, channels=60)


def zero_residual(width: int = 16) -> nn.Sequential:
    """Build a residual network in which the last convolution of every block starts at zero."""
    blocks = []
    for _ in range(3):
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        blocks.append(Residual(conv_norm(width, width, 3), nn.ReLU(), last))
    return pooled(conv_norm(1, width, 3, 2), nn.ReLU(), *blocks, nn.ReLU(), channels=width)


def fixup(width: int = 24, depth: int = 4) -> nn.Sequential:
    """Build a residual network without normalisation: small first, zero last layers (Zhang, Dauphin and Ma 2019)."""
    blocks = []
    for _ in range(depth):
        first, last = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.normal_(first.weight, std=depth**-0.5 * math.sqrt(2 / (9 * width)))
        nn.init.zeros_(last.weight)
        blocks.append(Residual(first, nn.ReLU(), last))
    model = pooled(nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), *blocks, channels=width)
    *_, weight, _ = model.parameters()
    nn.init.zeros_(weight)
    return model


class LayerScale(nn.Module):
    """Factors of 1e-6 on channels, of the shape that torchvision gives them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.factors * x


def convnext(width: int = 24) -> nn.Sequential:
    """Build a network of ConvNeXt's blocks (Liu et al. 2022)."""
    blocks = [
        Residual(
            nn.Conv2d(width, width, 5, padding=2, groups=width), nn.GroupNorm(1, width), nn.Conv2d(width, 72, 1),
            nn.GELU(), nn.Conv2d(72, width, 1), LayerScale(width),
        )
        for _ in range(3)
    ]  # fmt: skip
    return pooled(nn.Conv2d(1, width, 2, 2), *blocks, channels=width)


class Modulated(nn.Module):
    """Channels with gains and shifts that another branch computes, and that start at zero (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_norm(1, width, 3, 2), nn.ReLU(), conv_norm(width, width, 3))
        self.film, self.head = nn.Linear(8, 2 * width), nn.Linear(width, tasks.CLASSES)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.film(x.mean((1, 2)))[..., None, None].chunk(2, 1)
        return self.head((self.convs(x) * (1 + gain) + shift).relu().mean((2, 3)))


class UNet(nn.Module):
    """Convolutions at two scales, joined by a shortcut (Ronneberger, Fischer and Brox 2015)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv_norm(1, width, 3), nn.ReLU())
        self.coarse = nn.Sequential(conv_norm(width, 2 * width, 3, 2), nn.ReLU(), conv_norm(2 * width, 2 * width, 3))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.head = nn.Sequential(conv_norm(2 * width, width, 3), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.head(torch.cat([fine, self.up(self.coarse(fine).relu())], 1))
