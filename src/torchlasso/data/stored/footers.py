"""Footers of Parquet files, of which a part is used: some columns of some row groups.

The footer describes each column of each row group, and Arrow takes about 800 bytes of memory for each description: half
a gigabyte for 1,000 columns and 500 row groups. So the descriptions are only located here, and a footer with few of
them is made whenever some columns or row groups are read.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso.data.stored.thrift import STRUCT, Cursor, integer, list_of, texts

MAGIC = b"PAR1"
VERSION, SCHEMA, GROUPS, PAIRS, WRITER = 1, 2, 4, 5, 6  # the numbers of fields of a footer
CHILDREN = 5  # of an element of the schema
CHUNKS, BYTES, ROWS = 1, 2, 3  # of a row group
AT_ONCE = 10_000  # descriptions of a footer with some of the row groups


@dataclass
class _Column:
    """A column of the file: where its elements of the schema are, and the numbers of its chunks in a row group."""

    begin: int
    end: int
    elements: int
    chunks: range


@dataclass
class _RowGroup:
    """A row group: where the description of each chunk begins, and where the last one ends."""

    places: array[int]
    size: int
    rows: int


class Footer:
    """The descriptions in the footer of a Parquet file, of which any can be taken.

    Args:
        path: of the file.

    Attributes:
        schema: a ``pyarrow.Schema``.
        rows: of the file.
        size: the bytes of its values, not compressed.

    Raises:
        ValueError: the footer is damaged, or not one that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns, self._groups = list[_Column](), list[_RowGroup]()
        self._version, self._writer, self._start = 1, b"", 0
        with path.open("rb") as file:
            ends = file.seek(0, 2) - 8
            file.seek(max(0, ends))
            size = int.from_bytes(file.read(4), "little")
            if file.read(4) != MAGIC or size + len(MAGIC) > ends:
                raise ValueError("no footer at the end")
            self._start = file.seek(ends - size)
            content = file.read(size)
        try:
            pairs = self._locate(Cursor(content))
        except (IndexError, RecursionError) as error:
            raise ValueError("its footer ends too early") from error
        self.rows, self.size = sum(g.rows for g in self._groups), sum(g.size for g in self._groups)
        self.schema = self._parsed(range(len(self._columns)), (), pairs, content).schema.to_arrow_schema()

    def _locate(self, cursor: Cursor) -> bytes:
        """Locate the descriptions, and return the pairs of keys and values."""
        pairs = list_of(0, b"")
        for number, kind in cursor.fields():
            if number == VERSION:
                self._version = cursor.integer()
            elif number == SCHEMA:
                self._columns = list(_columns(cursor))
            elif number == GROUPS:
                self._groups = [_row_group(cursor) for _ in range(cursor.count())]
            elif number in (PAIRS, WRITER):
                begin = cursor.at
                cursor.skip(kind)
                value = cursor.content[begin : cursor.at]
                pairs, self._writer = (value, self._writer) if number == PAIRS else (pairs, value)
            else:
                cursor.skip(kind)
        chunks = sum(len(column.chunks) for column in self._columns)
        if any(len(group.places) != chunks + 1 for group in self._groups):
            raise ValueError("its row groups have other columns than its schema")
        return pairs

    def metadata(self, names: Sequence[str], groups: Sequence[int] | None = None) -> Any:
        """Return the ``pyarrow.parquet.FileMetaData`` of some columns, in the order of the file.

        Args:
            names: of the columns.
            groups: the numbers of the row groups; None for all.
        """
        pa = require("pyarrow", "data", f"{self.path}: reading Parquet")
        wanted = {*names}
        columns = [i for i, name in enumerate(self.schema.names) if name in wanted]
        kept = pa.schema([self.schema.field(i) for i in columns])  # Arrow keeps types there that Parquet lacks
        value = base64.b64encode(kept.serialize().to_pybytes())
        pairs = list_of(1, texts(b"ARROW:schema", value))
        with self.path.open("rb") as file:
            file.seek(self._start)
            return self._parsed(columns, range(len(self._groups)) if groups is None else groups, pairs, file)

    def runs(self, names: Sequence[str]) -> Iterator[range]:
        """Yield row groups whose descriptions of some columns take little memory together."""
        each = max(1, AT_ONCE // max(1, len(names)))
        every = range(len(self._groups))
        return (every[start : start + each] for start in range(0, len(every), each))

    def _parsed(self, columns: Sequence[int], groups: Sequence[int], pairs: bytes, content: Any) -> Any:
        """Let Arrow parse a footer with some columns and row groups; ``content`` is the whole footer, or the file."""
        pa = require("pyarrow", "data", f"{self.path}: reading Parquet")
        parquet = require("pyarrow.parquet", "data", f"{self.path}: reading Parquet")

        def taken(begin: int, end: int) -> bytes:
            if isinstance(content, bytes):
                return content[begin:end]
            content.seek(self._start + begin)
            return bytes(content.read(end - begin))

        chosen = [self._columns[i] for i in columns]
        root = b"\x48" + texts(b"schema")[1:-1] + b"\x15" + integer(len(chosen)) + b"\x00"
        elements = b"".join([root, *(taken(column.begin, column.end) for column in chosen)])
        described = [self._described(self._groups[g], chosen, taken) for g in groups]
        footer = b"".join(
            [
                b"\x15" + integer(self._version),
                b"\x19" + list_of(1 + sum(column.elements for column in chosen), elements),
                b"\x16" + integer(sum(self._groups[g].rows for g in groups)),
                b"\x19" + list_of(len(described), b"".join(described)),
                b"\x19" + pairs,
                (b"\x18" + self._writer) if self._writer else b"",
                b"\x00",
            ]
        )
        file = MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC
        return parquet.read_metadata(pa.BufferReader(file))

    def _described(self, group: _RowGroup, columns: Sequence[_Column], taken: Any) -> bytes:
        places = group.places
        spans = ((places[column.chunks[0]], places[column.chunks[-1] + 1]) for column in columns)
        chunks = list_of(sum(len(column.chunks) for column in columns), b"".join(taken(*span) for span in spans))
        return b"\x19" + chunks + b"\x16" + integer(group.size) + b"\x16" + integer(group.rows) + b"\x00"


def _columns(cursor: Cursor) -> Iterator[_Column]:
    """Yield the columns of the schema, whose elements are listed depth first, after the root."""
    left, chunk = cursor.count(), 0
    _children(cursor)
    left -= 1
    while left > 0:
        begin, pending, elements, first = cursor.at, 1, 0, chunk
        while pending:
            children = _children(cursor)
            pending += children - 1
            elements, chunk = elements + 1, chunk + (not children)
        left -= elements
        yield _Column(begin, cursor.at, elements, range(first, chunk))


def _children(cursor: Cursor) -> int:
    """Read an element of the schema, and return the number of its children."""
    children = 0
    for number, kind in cursor.fields():
        if number == CHILDREN:
            children = cursor.integer()
        else:
            cursor.skip(kind)
    return children


def _row_group(cursor: Cursor) -> _RowGroup:
    places, size, rows = array("q"), 0, 0
    for number, kind in cursor.fields():
        if number == CHUNKS:
            for _ in range(cursor.count()):
                places.append(cursor.at)
                cursor.skip(STRUCT)
            places.append(cursor.at)
        elif number == BYTES:
            size = cursor.integer()
        elif number == ROWS:
            rows = cursor.integer()
        else:
            cursor.skip(kind)
    return _RowGroup(places, size, rows)
