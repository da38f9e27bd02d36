"""Pixels: weights and images as colours, and tiles on a sheet.

All are uint8, (height, width, 4), with red, green, blue and opacity last. Empty pixels are transparent and show the
background, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Visible on white and on black.
ABOVE, BELOW, NONE = (70, 126, 240), (232, 120, 60), (128, 134, 139)
FAINTEST = 0.35  # the opacity of the smallest nonzero weight
EMPTY = 0.16  # the opacity of a zero


def tinted(w: Tensor) -> Tensor:
    """Convert weights to colours, (…, 4): positive blue, negative orange, larger ones stronger, and zeros pale grey."""
    w = w.detach().double().cpu()
    size = w.abs() / (w.abs().max() if w.any() else 1.0)
    colour = torch.where((w > 0)[..., None], _rgb(ABOVE), torch.where((w < 0)[..., None], _rgb(BELOW), _rgb(NONE)))
    opacity = torch.where(w == 0, EMPTY, FAINTEST + (1 - FAINTEST) * size)
    return torch.cat([colour, 255 * opacity[..., None]], dim=-1).round().to(torch.uint8)


def as_colours(images: Tensor) -> Tensor:
    """Convert images (…, channels, height, width) to colours (…, height, width, 4); the largest value is brightest."""
    images = images.detach().double().cpu()
    low, high = images.min(), images.max()
    images = (images - low) / (high - low if high > low else 1.0)
    if images.shape[-3] != 3:
        images = images.mean(dim=-3, keepdim=True).expand(*images.shape[:-3], 3, *images.shape[-2:])
    colours = images.movedim(-3, -1)
    return torch.cat([255 * colours, torch.full_like(colours[..., :1], 255)], dim=-1).round().to(torch.uint8)


def crossed_out(pixels: Tensor, which: Tensor) -> Tensor:
    """Enlarge pixels, and replace those in a mask (height, width) by a dot."""
    factor = 5 if max(which.shape) <= 16 else 3
    found = pixels.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
    gone = which.cpu().repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
    dots = torch.zeros_like(gone)
    dots[factor // 2 :: factor, factor // 2 :: factor] = True
    found[gone] = 0
    found[gone & dots] = torch.tensor([*NONE, 255], dtype=torch.uint8)
    return found


def smaller(images: Tensor, largest: int = 64) -> Tensor:
    """Shrink images (…, height, width) to at most ``largest`` pixels on a side, by means of pixels."""
    size = math.ceil(max(images.shape[-2:]) / largest)
    images = images.detach().double().cpu()
    return images if size == 1 else torch.nn.functional.avg_pool2d(images, size, ceil_mode=True)


def sheet(tiles: Sequence[Tensor], columns: int, gap: int = 1) -> Tensor:
    """Arrange tiles of one size in rows, with transparent pixels between them."""
    height, width, _ = tiles[0].shape
    rows, columns = math.ceil(len(tiles) / columns), min(columns, len(tiles))
    found = torch.zeros(rows * (height + gap) - gap, columns * (width + gap) - gap, 4, dtype=torch.uint8)
    for k, tile in enumerate(tiles):
        top, left = k // columns * (height + gap), k % columns * (width + gap)
        found[top : top + height, left : left + width] = tile
    return found


def show(axes: Any, pixels: Tensor, title: str) -> None:
    """Draw pixels into matplotlib's axes, without ticks."""
    axes.imshow(pixels.numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=11)


def _rgb(colour: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float64)
