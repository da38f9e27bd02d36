"""Files that gzip may have compressed, read as what they hold."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line

ENDING = ".gz"


def either(*suffixes: str) -> tuple[str, ...]:
    """Return endings of names, each also with that of compressed files.

    >>> either(".csv")
    ('.csv', '.csv.gz')
    """
    return (*suffixes, *(suffix + ENDING for suffix in suffixes))


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading; of a compressed one, what it holds."""
    return cast(BinaryIO, _Unpacked(path)) if is_compressed(path) else path.open("rb")


def size_of(path: Path) -> int:
    """Return the bytes that a file holds: of a compressed one those that its end names, which may be fewer.

    Source: RFC 1952, GZIP file format specification version 4.3, section 2.3.1.
    """
    packed = path.stat().st_size
    if not is_compressed(path) or packed < 4:
        return packed
    with path.open("rb") as file:
        file.seek(-4, 2)
        return max(packed, int.from_bytes(file.read(4), "little"))


def is_compressed(path: Path) -> bool:
    """Return whether gzip compressed a file, by its name."""
    return path.name.lower().endswith(ENDING)


class _Unpacked(gzip.GzipFile):
    """The content of a compressed file, which is refused once it is more than memory, whatever its end says."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path, self._seen, self._checked = path, 0, size_of(path)

    def read(self, *size: Any) -> bytes:
        try:
            found = super().read(*size)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{self._path}: not a whole gzip file: {first_line(error)}") from error
        self._seen += len(found)
        if self._seen > self._checked:
            self._checked = 2 * self._seen
            need_memory(self._checked, str(self._path))
        return found
