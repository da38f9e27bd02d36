"""Decode an image (PNG, JPEG and other formats of Pillow), and count those that cannot be read."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

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


ImageSize = tuple[int, int]  # width and height


class ImageDecoder:
    """A function from an encoded image, or its file, to its pixels.

    It is turned upright as its EXIF data say, and brought to the size of the options.

    Args:
        options: of the size.
    """

    def __init__(self, options: ImageOptions) -> None:
        self.options = options
        self._pillow = require("PIL.Image", "data", "reading images")
        self._pillow.init()
        self._formats = [name for name in FORMATS if name in self._pillow.OPEN]

    def __reduce__(self) -> tuple[type[ImageDecoder], tuple[ImageOptions]]:
        return ImageDecoder, (self.options,)  # a module cannot be sent to another process

    def __call__(
        self, encoded: bytes | Path, what: str = "the image", room: Callable[[int], None] | None = None
    ) -> tuple[Array, ImageSize]:
        """Return the pixels as bytes, (1 or 3, height, width), and the size before it was changed.

        Args:
            encoded: the image.
            what: its name in messages.
            room: called with the number of pixels that it will have, before they are decoded.

        Raises:
            MemoryError: there is too little memory.
            Exception: it cannot be decoded; Pillow's decoders raise all kinds of errors on damaged files.
        """
        source, options = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, self.options
        with _quietly(self._pillow), self._pillow.open(source, formats=self._formats) as opened:
            if room is not None:
                height, width = (opened.height, opened.width) if options.size is None else options.sides
                room(height * width)
            if opened.height * opened.width > ASKED // 4:  # seldom: asking takes longer than decoding a small one
                need_memory(4 * opened.height * opened.width, what)
            may_turn = opened.format == "TIFF" or not ORIENTED.isdisjoint(opened.info)
            image = _plain(opened, self._pillow)
            image = _upright(image) if may_turn else image
            size = image.size
            pixels = np.asarray(_resized(image, options))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), size

    def bytes_of(self, encoded: bytes | Path) -> int:
        """Return the bytes of the pixels of an image, or 0 if it cannot be read."""
        try:
            return self(encoded)[0].nbytes
        except Exception:
            return 0


@dataclass
class Tally:
    """The sizes of images so far, and those that could not be read.

    Args:
        count: the number of all images.
        where: a function from the index of an image to its name in messages.
        options: of their size, and for unreadable ones.
    """

    count: int
    where: Callable[[int], str]
    options: ImageOptions
    bad: dict[int, str] = field(default_factory=dict)
    sizes: set[ImageSize] = field(default_factory=set)

    def fail(self, index: int, reason: str) -> None:
        """Count an image that cannot be read.

        Raises:
            ValueError: there are too many.
        """
        self.bad[index] = f"{self.where(index)}: not a readable image ({reason})"
        if len(self.bad) > self.options.skip_corrupt * self.count:
            raise ValueError(_refusal(self.bad, index + 1, self.options))

    def see(self, index: int, size: ImageSize) -> None:
        """Count an image that can be read.

        Raises:
            ValueError: its size differs from that of the first one, and none is wanted.
        """
        self.sizes.add(size)
        if self.options.size is None and len(self.sizes) > 1:
            first = next(iter(self.sizes - {size}))
            raise ValueError(
                f"{self.where(index)}: the image has {size[0]}x{size[1]} pixels, the first one has "
                f"{first[0]}x{first[1]}; all must have one size, or be brought to it with size=, such as size=224"
            )

    def refuse_none(self) -> None:
        """Raise ``ValueError`` if no image could be read."""
        if not self.sizes:
            raise ValueError(f"{next(iter(self.bad.values()), self.where(0))}; no image is left")

    @property
    def kept(self) -> Array:
        """The numbers of the images that could be read, of all of them."""
        return np.delete(np.arange(self.count), list(self.bad))

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences on what was done to images."""
        return tuple(_notes(self.bad, self.sizes, self.options, self.where))


def why(error: Exception) -> str:
    """Return why an image cannot be decoded, in one line."""
    return re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", first_line(error))


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
