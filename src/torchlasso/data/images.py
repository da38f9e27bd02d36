"""Decode images (PNG, JPEG and other formats of Pillow) into one array of bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.specs import unknown
from torchlasso._core.text import first_line
from torchlasso.data.frame import Array
from torchlasso.data.messages import listed

# Only these formats of Pillow: it runs other programs for some others, and chooses by content, not by file name.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
ASKED = 1 << 26  # bytes of pixels between two checks of the free memory
BYTES = 3  # bytes of memory per byte of pixels: the pixels, and a copy while they are divided
ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow keeps an orientation
NAMED = 3  # skipped images that are named
LARGEST = 1 << 14  # pixels of a side
_GREY = ("L", "1", "LA", "La")
BICUBIC = 3  # Pillow's number of a filter that looks at all pixels that become one
PAD, CROP, STRETCH = RESIZES = ("pad", "crop", "stretch")


@dataclass(frozen=True)
class ImageOptions:
    """The reading of images.

    Attributes:
        size: the size to which they are brought, as in ``224`` or, height first, ``224x320``; None for their own,
            which must then be the same for all.
        resize: ``"pad"``: as large as fits, on black; ``"crop"``: as small as fills, its middle; ``"stretch"``.
        skip_corrupt: the share of images that may be unreadable, and are then left out.

    Raises:
        ValueError: a value is of no use.
    """

    size: str | None = None
    resize: str = PAD
    skip_corrupt: float = 0.0

    def __post_init__(self) -> None:
        if self.size is not None and not (min(self.sides) >= 1 and max(self.sides) <= LARGEST):
            raise ValueError(f"size must be from 1 to {LARGEST:,} pixels; got {self.size!r}")
        if self.resize not in RESIZES:
            raise unknown("resize", self.resize, RESIZES)
        if not 0 <= self.skip_corrupt < 1:
            raise ValueError(f"skip_corrupt must be a share, at least 0 and below 1; got {self.skip_corrupt!r}")

    @property
    def sides(self) -> tuple[int, int]:
        """The height and the width."""
        match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", self.size or "")
        if match is None:
            raise ValueError(f"size must be pixels, as in 224, or height and width, as in 224x320; got {self.size!r}")
        return int(match[1]), int(match[2] or match[1])


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

    They are turned upright as their EXIF data say.

    Args:
        images: encoded images, or their files.
        count: their number.
        where: a function from the index of an image to its name in messages.
        options: of their size, and for unreadable ones.

    Raises:
        ValueError: too many images cannot be decoded, or one differs in size from the first one.
        MemoryError: there is too little memory.
    """
    options = options or ImageOptions()
    pillow = require("PIL.Image", "data", "reading images")
    pillow.init()
    formats = [name for name in FORMATS if name in pillow.OPEN]
    buffer, kept, bad, sizes = _Buffer(count), list[int](), dict[int, str](), set[tuple[int, int]]()
    for index, encoded in enumerate(images):
        try:
            source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            with _quietly(pillow), pillow.open(source, formats=formats) as opened:
                height, width = (opened.height, opened.width) if options.size is None else options.sides
                buffer.check(height * width, where, index)
                if opened.height * opened.width > ASKED // 4:  # seldom: asking takes longer than decoding a small one
                    need_memory(4 * opened.height * opened.width, where(index))
                may_turn = opened.format == "TIFF" or not ORIENTED.isdisjoint(opened.info)
                image = _plain(opened, pillow)
                image = _upright(image) if may_turn else image
                sizes.add(image.size)
                pixels = np.asarray(_resized(image, options))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
            bad[index] = f"{where(index)}: not a readable image ({first_line(error)})"
            if len(bad) > options.skip_corrupt * count:
                raise ValueError(_refusal(bad, index + 1, options)) from error
            continue
        if options.size is None and len(sizes) > 1:
            first = next(iter(sizes - {image.size}))
            raise ValueError(
                f"{where(index)}: the image has {image.width}x{image.height} pixels, the first one has "
                f"{first[0]}x{first[1]}; all must have one size, or be brought to it with size=, such as size=224"
            )
        buffer.add(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
        kept.append(index)
    if buffer.pixels is None:
        raise ValueError(f"{next(iter(bad.values()), where(0))}; no image is left")
    x = torch.from_numpy(buffer.pixels[: buffer.filled])
    return Decoded(x, np.array(kept), tuple(_notes(bad, sizes, options, where)))


def _refusal(bad: dict[int, str], seen: int, options: ImageOptions) -> str:
    first = next(iter(bad.values()))
    if not options.skip_corrupt:
        return first
    more = f"more than skip_corrupt={options.skip_corrupt:g}"
    return f"{first}; {len(bad)} of the first {seen} images are unreadable, {more}"


def _notes(
    bad: dict[int, str], sizes: set[tuple[int, int]], options: ImageOptions, where: Callable[[int], str]
) -> Iterator[str]:
    if options.size is not None and sizes != {options.sides[::-1]}:
        low, high = min(sizes, key=lambda size: size[0] * size[1]), max(sizes, key=lambda size: size[0] * size[1])
        own = f"{low[1]}×{low[0]}" if len(sizes) == 1 else f"{low[1]}×{low[0]} to {high[1]}×{high[0]}"
        yield f"Images of {own} pixels are brought to {options.sides[0]}×{options.sides[1]} ({options.resize})."
    if bad:
        what = "1 image is" if len(bad) == 1 else f"{len(bad):,} images are"
        yield f"{what} unreadable and left out: {listed(map(where, bad), most=NAMED)}."


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


def _upright(image: Any) -> Any:
    return require("PIL.ImageOps", "data", "reading images").exif_transpose(image)


def _resized(image: Any, options: ImageOptions) -> Any:
    if options.size is None or image.size == options.sides[::-1]:
        return image
    size, ops = options.sides[::-1], require("PIL.ImageOps", "data", "reading images")
    if options.resize == STRETCH:
        return image.resize(size, resample=BICUBIC)
    return ops.pad(image, size, method=BICUBIC) if options.resize == PAD else ops.fit(image, size, method=BICUBIC)
