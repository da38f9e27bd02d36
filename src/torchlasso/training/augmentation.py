"""Augmentation of images: random crops and flips of each batch, by kornia."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchlasso._core.arguments import check_whole
from torchlasso._core.extras import require
from torchlasso.training.regularisation import Transform, background_of, need_floats
from torchlasso.training.rows import InputRows

SHARE = 8  # the default padding is this part of the shorter side: 4 of 32 pixels


class RandomCrop:
    """A random crop of images to their own size, after padding with the background on all sides.

    Each image is thus moved by up to ``padding`` pixels in both directions. The background of a channel is its most
    common value, if at least a quarter of its values equal it, or otherwise the mean.

    Args:
        rows: the training images, (n, channels, height, width).
        padding: pixels on each side; an eighth of the shorter side unless given.

    Raises:
        TypeError: the images are not floating-point numbers.
        ValueError: the rows are not images, the padding is not possible, or kornia is not installed.

    Examples:
        >>> import torch
        >>> images = torch.zeros(100, 1, 4, 4)
        >>> images[:, :, 1, 1] = 1.0
        >>> moved = RandomCrop(images, padding=1)(images)
        >>> moved[:, 0].amax(dim=0)  # a pixel is moved by one at most
        tensor([[1., 1., 1., 0.],
                [1., 1., 1., 0.],
                [1., 1., 1., 0.],
                [0., 0., 0., 0.]])
    """

    def __init__(self, rows: InputRows, padding: int | None = None) -> None:
        _need_images("crop", rows[:1], rows.shape)
        height, width = rows.shape[2:]
        least = min(height, width)
        if padding is None:
            padding = max(1, round(least / SHARE))
        check_whole("padding of the augmentation 'crop'", padding, most=least)
        self.background = background_of(rows)
        self._crop = _kornia("crop").RandomCrop((height, width), padding=padding)

    def __call__(self, x: Tensor) -> Tensor:
        """Crop the images of a batch, (n, channels, height, width)."""
        _need_images("crop", x)
        # kornia pads all channels with one number: with zeros, here
        return self._crop(x - self.background) + self.background  # type: ignore[no-any-return]


class RandomFlip:
    """A horizontal flip of each image of a batch, with probability one half.

    Raises:
        ValueError: kornia is not installed.

    Examples:
        >>> import torch
        >>> images = torch.tensor([0.0, 1.0]).expand(100, 1, 1, 2)
        >>> RandomFlip()(images)[:, 0, 0].unique(dim=0)
        tensor([[0., 1.],
                [1., 0.]])
    """

    def __init__(self) -> None:
        self._flip = _kornia("flip").RandomHorizontalFlip()

    def __call__(self, x: Tensor) -> Tensor:
        """Flip images of a batch, (n, channels, height, width).

        Raises:
            TypeError: the images are not floating-point numbers.
            ValueError: the rows are not images.
        """
        _need_images("flip", x)
        return self._flip(x)  # type: ignore[no-any-return]


AUGMENTATIONS: Mapping[str, Callable[..., Transform]] = {  # (training rows, options) ↦ a transform
    "crop": RandomCrop,
    "flip": lambda rows: RandomFlip(),
}


def _kornia(name: str) -> Any:
    return require("kornia.augmentation", "augment", f"the augmentation {name!r}")


def _need_images(name: str, x: Tensor, shape: torch.Size | None = None) -> None:
    if x.dim() != 4:
        found = tuple(shape or x.shape)
        raise ValueError(f"the augmentation {name!r} needs images, (n, channels, height, width); the rows are {found}")
    need_floats(f"the augmentation {name!r}", x)
