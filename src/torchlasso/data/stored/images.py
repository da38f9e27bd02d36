"""Images that stay encoded on a disk, and are decoded when a batch is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso.data.frame import Array
from torchlasso.data.image_decoding import ImageDecoder, ImageOptions, ImageSize, Tally, why
from torchlasso.data.messages import row
from torchlasso.data.stored.ahead import read_ahead
from torchlasso.data.stored.cache import kept_record, key_of, opened, state_of
from torchlasso.data.stored.rows import StoredRows

LEVELS, CHANNELS = 256, 3
AT_ONCE = 256  # images that a worker surveys in one call
NAME = "image"


class ImageSource(ABC):
    """Encoded images, by their numbers.

    Attributes:
        state: what changes when an image changes, for keys of the cache.
    """

    state: list[Any]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def take(self, places: Array) -> Sequence[bytes | Path]:
        """Return images, or their files."""

    @abstractmethod
    def where(self, place: int) -> str:
        """Name an image in a message."""


class ImageFiles(ImageSource):
    """Files of images."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.state = [key_of(*map(state_of, paths))]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, places: Array) -> Sequence[Path]:
        return [self.paths[place] for place in places.tolist()]

    def where(self, place: int) -> str:
        return str(self.paths[place])


class ArrowImages(ImageSource):
    """Images in the column ``image`` of an Arrow file, which is memory-mapped.

    Args:
        path: a file of :func:`write_images`.
        origin: the name of the data that it was made of, in messages.
        state: of these data.
    """

    def __init__(self, path: Path, origin: str, state: list[Any]) -> None:
        self.path, self.origin, self.state = path, origin, state
        self._column: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_column": None}  # each process maps the file itself

    @property
    def column(self) -> Any:
        """The images, a chunked array of Arrow."""
        if self._column is None:
            self._column = opened(self.path).read_all().column(NAME)
        return self._column

    def __len__(self) -> int:
        return len(self.column)

    def take(self, places: Array) -> Sequence[bytes]:
        column = self.column
        return [column[place].as_py() for place in places.tolist()]

    def where(self, place: int) -> str:
        return f"{self.origin}, {row(place)}"


def write_images(images: Iterator[list[bytes]], file: BinaryIO) -> None:
    """Write encoded images, some at a time, to an open file."""
    pa = require("pyarrow", "data", "writing images")
    with pa.ipc.new_file(file, pa.schema([(NAME, pa.large_binary())])) as writer:
        for some in images:
            writer.write_batch(pa.record_batch([pa.array(some, pa.large_binary())], names=[NAME]))


class EncodedImages(StoredRows):
    """Images on a disk that are decoded when they are read, as bytes, (n, channels, height, width).

    All are decoded once at the start: those that cannot be read are left out as in memory, and the bytes of each
    channel are counted.

    Args:
        source: the images.
        options: of their size, and for unreadable ones.
        workers: the number of processes that decode them.

    Attributes:
        kept: the numbers of the images that can be read.
        notes: what was done to them, a sentence each.

    Raises:
        ValueError: too many images cannot be decoded, or one differs in size from the first one.
    """

    dtype = torch.uint8

    def __init__(self, source: ImageSource, options: ImageOptions, workers: int) -> None:
        key = key_of("survey", source.state, str(options))
        found = kept_record(key, partial(_survey, source, options, workers), source.where(0))
        tally = Tally(len(source), source.where, options)
        for place, reason in found["bad"]:
            tally.fail(place, reason)
        tally.sizes = {(width, height) for width, height in found["sizes"]}
        self.kept, self.notes = tally.kept, tally.notes
        super().__init__(len(self.kept), tuple(found["shape"]))
        self.source, self.workers = source, workers
        self._decode = ImageDecoder(options)
        self._counts = np.array(found["counts"])

    def read(self, places: Array) -> Tensor:
        found = np.empty((len(places), *self.each), dtype=np.uint8)
        chosen = self.kept[places]
        for index, (place, encoded) in enumerate(zip(chosen.tolist(), self.source.take(chosen), strict=True)):
            try:
                found[index] = self._decode(encoded)[0]  # a grey image fills all channels
            except Exception as error:
                where = self.source.where(place)
                raise ValueError(f"{where}: the image has changed since the start ({why(error)})") from error
        return torch.from_numpy(found)

    def byte_counts(self) -> Array:
        """Return how often each byte is in each channel, (channels, 256)."""
        if self.index is None:
            return self._counts[: self.each[0]]
        here = np.zeros(self.count, dtype=bool)
        here[self.index] = True
        others = 2 * len(self.index) > self.count  # fewer are decoded if those left out are taken away
        places = np.flatnonzero(here != others)
        chunks = (places[i : i + AT_ONCE] for i in range(0, len(places), AT_ONCE))
        known = self._counts[: self.each[0]]
        counts = np.zeros_like(known)
        for some in read_ahead(self._count, chunks, self.workers):
            counts += some
        return known - counts if others else counts

    def _count(self, places: Array) -> Array:
        return np.stack([np.bincount(each.flatten(), minlength=LEVELS) for each in self.read(places).unbind(1)])


def _survey(source: ImageSource, options: ImageOptions, workers: int) -> dict[str, Any]:
    """Decode all images; return which cannot be read, their sizes, the shape of all and the counts of their bytes."""
    tally, decode = Tally(len(source), source.where, options), ImageDecoder(options)
    counts, channels, area = np.zeros((CHANNELS, LEVELS), dtype=np.int64), 1, (0, 0)
    reasons: list[tuple[int, str]] = []
    chunks = (np.arange(i, min(i + AT_ONCE, len(source))) for i in range(0, len(source), AT_ONCE))
    for some in read_ahead(partial(_survey_some, source, decode), chunks, workers):
        for place, seen in some.seen:
            if isinstance(seen, str):
                tally.fail(place, seen)
                reasons.append((place, seen))
            else:
                tally.see(place, seen)
        counts += some.counts
        channels, area = max(channels, some.channels), some.area or area
    tally.refuse_none()
    shape = [channels, *area]
    return {"bad": reasons, "sizes": sorted(tally.sizes), "shape": shape, "counts": counts.tolist()}


@dataclass
class _Some:
    """A survey of some images.

    Attributes:
        seen: the number of each, and its size, or why it cannot be read.
        counts: how often each byte is in each channel; grey images count in all.
        channels: the most of any.
        area: the height and width of all; None if none can be read.
    """

    seen: list[tuple[int, ImageSize | str]] = field(default_factory=list)
    counts: Array = field(default_factory=lambda: np.zeros((CHANNELS, LEVELS), dtype=np.int64))
    channels: int = 1
    area: tuple[int, int] | None = None


def _survey_some(source: ImageSource, decode: Callable[..., tuple[Array, ImageSize]], places: Array) -> _Some:
    found = _Some()
    for place, encoded in zip(places.tolist(), source.take(places), strict=True):
        try:
            pixels, size = decode(encoded)
        except MemoryError:
            raise
        except Exception as error:
            found.seen.append((place, why(error)))
            continue
        found.seen.append((place, size))
        found.channels, found.area = max(found.channels, len(pixels)), (pixels.shape[1], pixels.shape[2])
        for channel in range(CHANNELS):
            found.counts[channel] += np.bincount(pixels[channel % len(pixels)].reshape(-1), minlength=LEVELS)
    return found
