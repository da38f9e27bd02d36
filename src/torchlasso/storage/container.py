"""The safetensors file around the tensors: written atomically, and checked before any tensor is made."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchlasso._core.files import replacing
from torchlasso.compaction.resizing import Resizing
from torchlasso.storage.records import DTYPES, Nonzeros, Record

METADATA = "__metadata__"
KEY = "torchlasso.storage"  # the key of the metadata, and of the version in their text
VERSION = 1
UNSEALED = "00000000"  # in the place of the checksum while it is computed
PIECE = 1 << 20  # bytes read at a time
MOST = 1 << 62  # the most bytes of a tensor: torch's numbers would overflow beyond it


class Entry(NamedTuple):
    """A tensor's entry in the file."""

    dtype: str
    shape: tuple[int, ...]
    content: memoryview


def write(
    path: str | Path,
    entries: Mapping[str, Entry],
    sparse: Mapping[str, Record],
    tied: Mapping[str, str],
    cut: Resizing,
    metadata: Mapping[str, str],
    low_rank: Sequence[str] = (),
) -> None:
    """Write the tensors atomically; equal tensors give equal bytes.

    This does not use safetensors' own writer, which puts the metadata in any order.
    """
    records = {name: record.to_json() for name, record in sparse.items()}
    # first, so that its position is the same in every file
    extra: dict[str, Any] = {"cut": cut.to_json()} if cut.tensors else {}
    extra |= {"low_rank": list(low_rank)} if low_rank else {}
    layout = terse_json({KEY: VERSION, "crc32": UNSEALED, "sparse": records, "tied": tied, **extra})
    header: dict[str, Any] = {METADATA: {KEY: layout, **metadata}}
    # wide dtypes first, so that each tensor begins at a multiple of its width
    names, end = sorted(entries, key=lambda name: (-DTYPES[entries[name].dtype].itemsize, name)), 0
    for name in names:
        dtype, shape, content = entries[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (end, end + len(content))}
        end += len(content)
    text = terse_json(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        parts: list[bytes | memoryview] = [struct.pack("<Q", len(text)), text]
        parts += [entries[name].content for name in names]
        total = 0
        for part in parts:
            file.write(part)
            total = zlib.crc32(part, total)
        file.seek(8 + text.index(UNSEALED.encode()))
        file.write(f"{total:08x}".encode())


def terse_json(content: Any) -> str:
    """Return JSON in as few characters as possible."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


class Outline(NamedTuple):
    """The name, shape and dtype of a tensor to read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} of shape {self.shape}"


@dataclass(frozen=True)
class Stored:
    """A file with a correct header and checksum, whose tensors can be read one at a time."""

    path: str | Path
    file: Any
    outlines: Mapping[str, Outline]  # all tensors in the file
    sparse: Mapping[str, Record]
    tied: Mapping[str, str]  # further names of tensors
    cut: Resizing  # the removed sizes of the model
    low_rank: Sequence[str] = ()  # the paths of layers that became two

    @classmethod
    def open(cls, path: str | Path) -> Stored:
        """Check a whole file, except the contents of sparse tensors.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a safetensors file, is damaged or has a later version; the message names it.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        with _refusing(path):
            with _in_utf_8(path) as name:
                file: Any = safe_open(name, framework="pt")
            sparse, tied, cut, low_rank = _layout(path, file.metadata() or {})
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            for name, other in tied.items():
                if name in entries or not isinstance(other, str) or other not in entries:
                    raise ValueError(f"{name!r:.80} cannot be the same as {other!r:.80}")
            for name in sparse:
                if name not in entries or entries[name].get_dtype() != "U8" or len(entries[name].get_shape()) != 1:
                    raise ValueError(f"{name!r:.80} is not stored as bytes")
            for name in cut.tensors.keys() - entries.keys() - tied.keys():
                raise ValueError(f"{name!r:.80} became smaller, but the file does not have it")
            outlines = {name: _outline(name, entry, sparse.get(name)) for name, entry in entries.items()}
            for layer in low_rank:
                for name in (f"{layer}.0.weight", f"{layer}.1.weight"):
                    if name not in outlines or len(outlines[name].shape) < 2:
                        raise ValueError(f"{layer!r:.80} became two layers, but the file does not have {name!r:.80}")
            return cls(path, file, outlines, sparse, tied, cut, low_rank)

    @property
    def names(self) -> dict[str, str]:
        """Return the names of all tensors, each with the name that the tensor is stored under."""
        return {**{name: name for name in self.outlines}, **self.tied}

    def tensor(self, name: str) -> Tensor:
        """Read one of the tensors; its memory may be mapped from the file.

        Raises:
            ValueError: the stored bytes are not such a tensor; the message names the file.
        """
        with _refusing(self.path, f"{name!r:.80}: "):
            tensor: Tensor = self.file.get_tensor(name)
            if name in self.sparse:
                tensor = self.sparse[name].unpack(tensor.numpy())
            if tensor.dtype == torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
                raise ValueError("it is bool and has other values than 0 and 1")
            return tensor

    def nonzeros(self, name: str) -> Nonzeros:
        """Read the nonzeros of one of the sparse tensors.

        Raises:
            ValueError: the stored bytes are not such a tensor; the message names the file.
        """
        with _refusing(self.path, f"{name!r:.80}: "):
            return self.sparse[name].nonzeros_of(self.file.get_tensor(name).numpy())


@contextmanager
def _in_utf_8(path: str | Path) -> Iterator[str]:
    """Give a file whose name is not UTF-8, which safetensors requires, another name while it is opened."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with Path(path).open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield str(path)


@contextmanager
def _refusing(path: str | Path, name: str = "") -> Iterator[None]:
    """Name the file in errors about its content."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error!s:.200})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {name}{error}") from error


def _layout(
    path: str | Path, metadata: Mapping[str, str]
) -> tuple[dict[str, Record], dict[str, str], Resizing, list[str]]:
    """Return the sparse and tied tensors, the removed sizes, and the layers that became two.

    All are empty for a safetensors file from other software.
    """
    if KEY not in metadata:
        if any(text.startswith(f'{{"{KEY}"') for text in metadata.values()):
            raise ValueError("it is damaged: its metadata are under another name")
        return {}, {}, Resizing(), []
    match json.loads(metadata[KEY]):
        case {"torchlasso.storage": int(version)} if version != VERSION:
            raise ValueError(f"its format is version {version}, and version {VERSION} was expected")
        case {"torchlasso.storage": int(), "crc32": str(seal), "sparse": dict(sparse), "tied": dict(tied), **more}:
            if seal != _checksum(path, seal):
                raise ValueError("it is damaged: its checksum is wrong")
            records = {name: Record.from_json(record) for name, record in sparse.items()}
            low_rank = more.get("low_rank", [])
            if not isinstance(low_rank, list) or not all(isinstance(name, str) for name in low_rank):
                raise ValueError(f"its layers of low rank are {low_rank!r:.80}")
            return records, tied, Resizing.from_json(more["cut"]) if "cut" in more else Resizing(), low_rank
    raise ValueError("it is damaged: its metadata do not describe a model")


def _checksum(path: str | Path, seal: str) -> str:
    """Compute the CRC-32 of the file without its checksum."""
    with Path(path).open("rb") as file:
        length = file.read(8)
        total = zlib.crc32(length)
        text = file.read(int.from_bytes(length, "little"))
        total = zlib.crc32(text.replace(seal.encode(), UNSEALED.encode(), 1), total)
        while piece := file.read(PIECE):
            total = zlib.crc32(piece, total)
    return f"{total:08x}"


def _outline(name: str, entry: Any, record: Record | None) -> Outline:
    if record:
        outline = Outline(record.dtype, record.shape)
    elif entry.get_dtype() in DTYPES:
        outline = Outline(DTYPES[entry.get_dtype()], tuple(entry.get_shape()))
    else:
        raise ValueError(f"{name!r:.80} is {entry.get_dtype()}, which is not supported")
    if math.prod(max(n, 1) for n in outline.shape) * outline.dtype.itemsize > MOST:
        raise ValueError(f"{name!r:.80} cannot be {outline!s:.80}")
    return outline
