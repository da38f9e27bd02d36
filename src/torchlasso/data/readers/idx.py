"""IDX files, the layout of the original MNIST: ``train-images-idx3-ubyte``, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.arrays import array_part
from torchlasso.data.frame import Array
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.registry import Portion, Reader, Source, register

_NAME = re.compile(r"(idx\d?(-ubyte)?|ubyte)(\.gz)?$", re.IGNORECASE)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_EXPANSION = 1100  # deflate makes at most 1032 bytes of one
_CHUNK = 1 << 20


class Stream(Protocol):
    """An open file, plain or gzipped."""

    def read(self, size: int, /) -> bytes: ...


@register
class Idx(Reader):
    """A file of images, with the file of its labels (``images-idx3`` → ``labels-idx1``) next to it."""

    form = "FILE-idx3-ubyte"

    def accepts(self, spec: str) -> bool:
        path = Path(spec)
        return bool(_NAME.search(path.name)) and "labels" not in path.name.lower() and path.is_file()

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        columns.refuse(spec)
        path = Path(spec)

        def read() -> Part:
            labels = _labels_of(path)
            if labels is None and columns.required:
                raise ValueError(f"{path}: no file of labels next to it, such as {_wanted(path)}")
            return array_part(read_idx(path), None if labels is None else read_idx(labels), spec, columns.task)

        return Source(path.name, Portion(spec, read))


def _wanted(path: Path) -> str:
    return re.sub(r"idx\d", "idx1", path.name.replace("images", "labels"))


def _labels_of(path: Path) -> Path | None:
    plain = _wanted(path).removesuffix(".gz")
    found = (path.with_name(name) for name in (plain, f"{plain}.gz") if name != path.name)
    return next((file for file in found if file.is_file()), None)


def read_idx(path: Path) -> Array:
    """Read the array of an IDX file, without allocating more than the file holds.

    Raises:
        ValueError: the file is not an IDX file, is truncated, or its header does not fit its size.
    """
    size = path.stat().st_size
    zipped = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as stream:
            dtype, shape = _header(stream)
            promised = math.prod(shape) * dtype.itemsize
            if promised > (_MOST_EXPANSION if zipped else 1) * size:
                raise ValueError(f"its header announces {promised} bytes, more than the file can hold")
            need_memory(promised + 4 * math.prod(shape), f"{path}")  # the bytes, and as float32
            data = _read(stream, promised)
            if len(data) < promised:
                raise ValueError(f"its header announces {promised} bytes, but it holds {len(data)}")
            if stream.read(1):
                raise ValueError(f"its header announces {promised} bytes, but it holds more")
    except EOFError as error:
        raise ValueError(f"{path}: cut short: the gzip stream ends early") from error
    except (OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole IDX file: {first_line(error)}") from error
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _header(stream: Stream) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
        raise ValueError("it does not begin like an IDX file of 1 to 4 dimensions")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise ValueError("its header is cut short")
    return np.dtype(_TYPES[head[2]]), struct.unpack(f">{head[3]}I", sizes)


def _read(stream: Stream, count: int) -> bytes:
    """Read up to ``count`` bytes in chunks, since a gzip stream may hold far fewer than its header says."""
    chunks: list[bytes] = []
    while count > 0 and (chunk := stream.read(min(count, _CHUNK))):
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
