"""Encoded images (PNG, JPEG and what else Pillow reads) to one array."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso.data.arrays import unit_interval
from torchlasso.data.messages import one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_GREY = ("L", "1", "LA", "La")


def decode(images: Iterable[bytes | Path], where: Callable[[int], str]) -> Tensor:
    """Images of one size as float32 in [0, 1], (n, 1 or 3, height, width).

    Grey images have one channel; all have three when any of them has colours.

    Args:
        images: encoded images, or their files.
        where: what to call the image of an index in a message.

    Raises:
        ValueError: an image cannot be decoded, or differs in size from the first one.
    """
    pillow = require("PIL.Image", "data", "reading images")
    pixels: list[bytes] = []
    grey: list[bool] = []
    size: tuple[int, int] = (0, 0)
    for index, encoded in enumerate(images):
        try:
            with pillow.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
                image = _plain(opened, pillow)
                pixels.append(image.tobytes())
        except Exception as error:  # Pillow's decoders raise what they please on damaged files
            raise ValueError(f"{where(index)}: not a readable image ({one_line(error)})") from error
        grey.append(image.mode == "L")
        if index == 0:
            size = image.size
        elif image.size != size:
            sizes = f"{image.width}x{image.height} pixels, the first one has {size[0]}x{size[1]}"
            raise ValueError(f"{where(index)}: the image has {sizes}; all must have one size")
    channels = 1 if all(grey) else 3
    if channels == 3 and any(grey):
        pixels = [_triple(data) if flat else data for data, flat in zip(pixels, grey, strict=True)]
    data = np.frombuffer(b"".join(pixels), dtype=np.uint8)
    data = data.reshape(len(pixels), size[1], size[0], channels).transpose(0, 3, 1, 2)
    return torch.from_numpy(unit_interval(data))


def _plain(image: Any, pillow: Any) -> Any:
    """An image of mode L or RGB."""
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode in _GREY:
        return image.convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits of grey
        return pillow.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("decimal numbers as pixels; save it with 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _triple(data: bytes) -> bytes:
    return np.frombuffer(data, dtype=np.uint8).repeat(3).tobytes()
