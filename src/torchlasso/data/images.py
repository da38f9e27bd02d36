"""Decode images (PNG, JPEG and other formats of Pillow) into one array."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.arrays import unit_interval

# Only these formats of Pillow: it runs other programs for some others, and chooses by content, not by file name.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
ASKED = 1 << 26  # bytes of pixels between two checks of the free memory
BYTES = 10  # bytes of memory per byte of pixels: the pixels, joined, as float32 and standardised
_GREY = ("L", "1", "LA", "La")


def decode_images(images: Iterable[bytes | Path], where: Callable[[int], str]) -> Tensor:
    """Decode images of one size to float32 in [0, 1], (n, 1 or 3, height, width).

    The result has one channel if all images are grey, else three.

    Args:
        images: encoded images, or their files.
        where: a function from the index of an image to its name in messages.

    Raises:
        ValueError: an image cannot be decoded, or differs in size from the first one.
    """
    pillow = require("PIL.Image", "data", "reading images")
    pillow.init()
    formats = [name for name in FORMATS if name in pillow.OPEN]
    pixels: list[bytes] = []
    grey: list[bool] = []
    size: tuple[int, int] = (0, 0)
    held = 0  # bytes of the decoded pixels
    for index, encoded in enumerate(images):
        try:
            source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            with _quietly(pillow), pillow.open(source, formats=formats) as opened:
                area = opened.width * opened.height
                if not index or (held + area) // ASKED > held // ASKED:
                    need_memory(BYTES * (held + area), f"{where(index)}")
                image = _plain(opened, pillow)
                pixels.append(image.tobytes())
                held += len(pixels[-1])
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
            raise ValueError(f"{where(index)}: not a readable image ({first_line(error)})") from error
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


@contextmanager
def _quietly(pillow: Any) -> Iterator[None]:
    """Suppress Pillow's warnings about a file, except the one about too many pixels, which becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        yield


def _plain(image: Any, pillow: Any) -> Any:
    """Convert an image to mode L or RGB."""
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
