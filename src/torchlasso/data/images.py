"""Decode images into one array of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.memory import need_memory
from torchlasso.data.frame import Array
from torchlasso.data.image_decoding import ASKED, ImageDecoder, ImageOptions, Tally, why

BYTES = 3  # bytes of memory per byte of pixels: the pixels, and a copy while they are divided


@dataclass
class Decoded:
    """Decoded images.

    Attributes:
        x: bytes, (n, 1 or 3, height, width); one channel if all images are grey.
        kept: the numbers of the images that could be read.
        notes: what was done to them, a sentence each.
    """

    x: Tensor
    kept: Array
    notes: tuple[str, ...] = ()


@dataclass
class _Buffer:
    """The pixels so far, in an array for all images."""

    count: int
    pixels: Array | None = None
    filled: int = 0
    checked: int = field(default=-1)

    def add(self, pixels: Array) -> None:
        """Add an image, (1 or 3, height, width)."""
        channels, height, width = pixels.shape
        held = self.pixels
        if held is None:
            held = np.empty((self.count, channels, height, width), dtype=np.uint8)
        elif channels > held.shape[1]:  # grey images so far
            grey, held = held, np.empty((self.count, channels, height, width), dtype=np.uint8)
            held[: self.filled] = grey[: self.filled]
        held[self.filled] = pixels
        self.pixels, self.filled = held, self.filled + 1

    def check(self, area: int, where: Callable[[int], str], index: int) -> None:
        """Raise ``MemoryError`` if there is too little memory for another image; memory is taken as it is filled."""
        held = area + (0 if self.pixels is None else self.filled * self.pixels[0].size)
        if held // ASKED > self.checked:
            need_memory(BYTES * held, where(index))
            self.checked = held // ASKED


def decode_images(
    images: Iterable[bytes | Path], count: int, where: Callable[[int], str], options: ImageOptions | None = None
) -> Decoded:
    """Decode images.

    Args:
        images: encoded images, or their files.
        count: their number.
        where: a function from the index of an image to its name in messages.
        options: of their size, and for unreadable ones.

    Raises:
        ValueError: too many images cannot be decoded, or one differs in size from the first one.
        MemoryError: there is too little memory.
    """
    decode = ImageDecoder(options or ImageOptions())
    buffer, tally = _Buffer(count), Tally(count, where, decode.options)
    for index, encoded in enumerate(images):
        try:
            pixels, size = decode(encoded, where(index), lambda area: buffer.check(area, where, index))  # noqa: B023
        except MemoryError:
            raise
        except Exception as error:
            tally.fail(index, why(error))
            continue
        tally.see(index, size)
        buffer.add(pixels)
    tally.refuse_none()
    assert buffer.pixels is not None
    return Decoded(torch.from_numpy(buffer.pixels[: buffer.filled]), tally.kept, tally.notes)
