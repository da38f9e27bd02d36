"""JSON lines, read a block of lines at a time: as a table, or as a Parquet file in the cache."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.data.compressed import is_compressed, open_unpacked, size_of
from torchlasso.data.stored.cache import kept_file, key_of, state_of

BLOCK, LARGEST = 1 << 24, 1 << 30  # bytes that are read at once, about, of a file that stays on the disk, and of others
MARK = b"\xef\xbb\xbf"  # of UTF-8, which some programs write first
PLACE = re.compile(r"\s*in row (\d+)$")  # at the end of errors of Arrow


@dataclass(frozen=True)
class Block:
    """Some lines of a file.

    Attributes:
        content: the lines.
        first: the number of the first one, from 1.
    """

    content: bytes
    first: int


def json_as_parquet(path: Path) -> Path:
    """Return a Parquet file with the columns of a file of JSON lines, which is kept in the cache.

    The lines are read twice: all of them decide the type of a column.

    Raises:
        ValueError: a line has no object, or a column has values of several types; the message names the line.
    """
    pa = require("pyarrow", "data", f"{path}: reading JSON lines")

    def write(file: BinaryIO) -> None:
        parquet = require("pyarrow.parquet", "data", f"{path}: reading JSON lines")
        with parquet.ParquetWriter(file, schema := _schema_of(pa, path, BLOCK)) as writer:
            for block in _blocks(path, BLOCK):
                writer.write_table(_read(block, path, schema))

    return kept_file(key_of("json", state_of(path)), ".parquet", write, size_of(path), str(path))


def json_as_table(path: Path) -> Any:
    """Read a file of JSON lines into memory, as a ``pyarrow.Table``.

    Raises:
        ValueError: as of :func:`json_as_parquet`.
    """
    pa = require("pyarrow", "data", f"{path}: reading JSON lines")
    if not is_compressed(path) and size_of(path) < LARGEST:  # the size of a compressed one may be larger than it says
        return _read(next(_blocks(path, LARGEST)), path)
    schema = _schema_of(pa, path, LARGEST)
    return pa.concat_tables([_read(block, path, schema) for block in _blocks(path, LARGEST)])


def _read(block: Block, path: Path, schema: Any = None) -> Any:
    """Read lines as a ``pyarrow.Table``.

    Args:
        block: the lines.
        path: of the file, for messages.
        schema: of the table, a ``pyarrow.Schema``; None to find it.

    Raises:
        ValueError: a line has no object, or a column has values of several types.
    """
    pa = require("pyarrow", "data", f"{path}: reading JSON lines")
    reader = require("pyarrow.json", "data", f"{path}: reading JSON lines")
    read = reader.ReadOptions(block_size=max(1, len(block.content)), use_threads=False)
    unexpected = "infer" if schema is None else "error"
    parse = reader.ParseOptions(schema, newlines_in_values=False, unexpected_field_behavior=unexpected)
    try:
        found = reader.read_json(io.BytesIO(block.content), read, parse)
        found.validate(full=True)  # that texts are UTF-8
        return found
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(_fault(block, path, first_line(error))) from error


def _fault(block: Block, path: Path, fault: str) -> str:
    """Name the line of a fault: the one that Arrow means, which counts those that are not empty."""
    known = PLACE.search(fault)
    lines = [i for i, line in enumerate(block.content.split(b"\n")) if line.strip()]
    number = _unreadable(block)
    if number is None and known is not None and int(known[1]) < len(lines):
        number = lines[int(known[1])]
    where = "" if number is None else f", line {block.first + number:,}"
    return f"{path}{where}: not JSON lines with an object in each ({PLACE.sub('', fault)})"


def _unreadable(block: Block) -> int | None:
    """Return the place of the first line that is not JSON with an object."""
    for place, line in enumerate(block.content.split(b"\n")):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return place
        except (ValueError, RecursionError):
            return place
    return None


def _blocks(path: Path, size: int) -> Iterator[Block]:
    """Yield the lines of a file, some at a time.

    Raises:
        ValueError: there are none.
    """
    first, is_empty = 1, True
    with open_unpacked(path) as file:
        held = file.read(len(MARK)).removeprefix(MARK)
        while content := file.read(size):
            held += content
            lines, held = (held, b"") if len(content) < size else _divided(held)
            if lines.strip():
                yield Block(lines, first)
                is_empty = False
            first += lines.count(b"\n")
    if held.strip():
        yield Block(held, first)
    elif is_empty:
        raise ValueError(f"{path}: an empty file; a line for each row is needed")


def _divided(content: bytes) -> tuple[bytes, bytes]:
    """Divide bytes after the last end of a line."""
    whole, end, rest = content.rpartition(b"\n")
    return whole + end, rest


def _schema_of(pa: Any, path: Path, size: int) -> Any:
    """Return the schema with types that hold the values of all lines."""
    schema = pa.schema([])
    for block in _blocks(path, size):
        schema = _with_types(pa, schema, block, path)
    return schema


def _with_types(pa: Any, schema: Any, block: Block, path: Path) -> Any:
    """Return a schema with the types that also hold the values of some more lines."""
    kinds = {field.name: field.type for field in schema}
    for field in _read(block, path).schema:
        try:
            kinds[field.name] = _common(pa, kinds.get(field.name, field.type), field.type)
        except pa.ArrowException as error:
            if len(lines := block.content.splitlines(keepends=True)) > 1:  # it is raised for the line
                for place, line in enumerate(lines):
                    if line.strip():
                        schema = _with_types(pa, schema, Block(line, block.first + place), path)
            what = f"column {field.name!r} changed from {kinds[field.name]} to {field.type}"
            raise ValueError(f"{path}, line {block.first:,}: not JSON lines with an object in each ({what})") from error
    return pa.schema(list(kinds.items()))


def _common(pa: Any, one: Any, other: Any) -> Any:
    """Return the type that Arrow gives to values of two types in one block."""
    dates = [pa.types.is_timestamp(kind) for kind in (one, other)]
    texts = [pa.types.is_string(kind) for kind in (one, other)]
    if any(dates) and any(texts):
        return pa.string()  # dates are text that is written as such
    whole = pa.schema([("x", one)]), pa.schema([("x", other)])
    return pa.unify_schemas(whole, promote_options="permissive").field("x").type
