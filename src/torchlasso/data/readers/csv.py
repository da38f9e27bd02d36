"""CSV files: a header, and rows of numbers and text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.compressed import either, open_unpacked, size_of
from torchlasso.data.decimals import PointedThousands, with_points
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part
from torchlasso.data.registry import register
from torchlasso.data.stored.cache import kept_file, key_of, state_of
from torchlasso.data.stored.columnar import ParquetFiles
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.parts import stored_table_part
from torchlasso.data.table_files import TableReader
from torchlasso.data.text_columns import are_values

SMALLEST_BLOCK, LARGEST_BLOCK = 2**20, 2**28  # bytes of text that are read at once
BLOCK = 2**26  # the same, for a file that stays on the disk
MEMORY = 8  # bytes of memory per byte of text: itself, and a number of 64 bits for every two characters
NOTES = "torchlasso.notes"
DELIMITERS = (",", ";", "\t", "|")
OTHER_NOTE = "{} is not UTF-8; it is read as cp1252."
OTHER = "cp1252"  # the encoding of text that is not UTF-8: of Windows, and nearly Latin-1


@register
class Csv(TableReader):
    """Comma-separated (or by semicolons, tabs or bars), with names in the first line."""

    form = "FILE.csv"
    suffix = either(".csv", ".tsv")

    def table(self, path: Path, notes: list[str]) -> Any:
        pa = require("pyarrow", "data", f"{path}: reading CSV")
        csv = require("pyarrow.csv", "data", f"{path}: reading CSV")
        need_memory(MEMORY * size_of(path), str(path))
        delimiter = delimiter_of(path)
        with _named(pa, path):
            table = _read_text(pa, csv, path, delimiter, notes)
        notes += _notes_of_header(path, table.column_names)
        if delimiter == ",":
            return table
        thousands = PointedThousands()
        thousands.see(table)
        notes += thousands.notes
        return with_points(pa, table)

    def on_disk(self, paths: Sequence[Path], columns: ColumnSelection) -> dict[str, Any]:
        def stored(stream: StreamOptions) -> Part:
            files = [as_parquet(path) for path in paths]
            part = stored_table_part(ParquetFiles(files, [*map(str, paths)]), columns, stream)
            return replace(part, notes=(*part.notes, *(note for file in files for note in _notes_in(file))))

        return {"size": lambda: sum(MEMORY * size_of(path) for path in paths), "stored": stored}


def as_parquet(path: Path) -> Path:
    """Return a Parquet file with the columns of a CSV file as text, which is kept in the cache.

    Raises:
        ValueError: it is not a CSV file with rows of one length.
    """
    pa = require("pyarrow", "data", f"{path}: reading CSV")
    delimiter = delimiter_of(path)

    def write(file: BinaryIO) -> None:
        with _named(pa, path):
            try:
                _convert(pa, path, delimiter, "utf8", file, ())
                return
            except (UnicodeDecodeError, pa.ArrowInvalid) as error:
                if not _is_of_encoding(error):
                    raise
            file.seek(0)
            file.truncate()
            _convert(pa, path, delimiter, OTHER, file, (OTHER_NOTE.format(path),))

    return kept_file(key_of("csv", state_of(path)), ".parquet", write, size_of(path), str(path))


def _convert(pa: Any, path: Path, delimiter: str, encoding: str, file: BinaryIO, notes: tuple[str, ...]) -> None:
    """Write the columns of a CSV file as text, some rows at a time."""
    csv = require("pyarrow.csv", "data", f"{path}: reading CSV")
    parquet = require("pyarrow.parquet", "data", f"{path}: reading CSV")
    options = _options(csv, BLOCK, delimiter, encoding)
    with (
        open_unpacked(path) as text,
        csv.open_csv(text, convert_options=_as_text(csv, path, options), **options) as rows,
    ):
        thousands = PointedThousands()
        with parquet.ParquetWriter(file, rows.schema) as writer:
            for batch in rows:
                table = pa.Table.from_batches([batch])
                if delimiter != ",":
                    thousands.see(table)
                    table = with_points(pa, table).cast(rows.schema)
                writer.write_table(table)
            found = [*notes, *_notes_of_header(path, rows.schema.names), *thousands.notes]
            writer.add_key_value_metadata({NOTES: json.dumps(found)})


def _notes_of_header(path: Path, names: Sequence[str]) -> list[str]:
    if not are_values(names):
        return []
    shown = f"looks like a row ({listed(names, most=3)}), and its values are the names of the columns"
    return [f"The first line of {path} {shown}; put names above it."]


def _notes_in(file: Path) -> list[str]:
    parquet = require("pyarrow.parquet", "data", "reading CSV")
    found: list[str] = json.loads(parquet.read_metadata(file).metadata[NOTES.encode()])
    return found


@contextmanager
def _named(pa: Any, path: Path) -> Iterator[None]:
    """Name the file in errors, except those of the cache."""
    try:
        yield
    except (ValueError, pa.ArrowException) as error:
        fault = first_line(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: not a CSV file with a header and rows of one length ({fault})") from error


def delimiter_of(path: Path) -> str:
    """Return the delimiter that is most frequent in the header, outside quotes.

    Raises:
        ValueError: the file is empty or binary.
    """
    with open_unpacked(path) as file:
        head = file.read(4096)
    if not head.strip():
        raise ValueError(f"{path}: an empty file; a header and rows are needed")
    if b"\0" in head:
        raise ValueError(f"{path}: not a CSV file: it is binary, not text in UTF-8")
    names = re.sub(r'"[^"]*"', "", head.decode("utf8", "replace").lstrip("\ufeff\r\n ").splitlines()[0])
    return max(DELIMITERS, key=names.count)


def _read_text(pa: Any, csv: Any, path: Path, delimiter: str, notes: list[str]) -> Any:
    """Read all columns as text, and note another encoding than UTF-8."""
    try:
        return _read_in(csv, path, delimiter, "utf8")
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if not _is_of_encoding(error):
            raise
    notes.append(OTHER_NOTE.format(path))
    return _read_in(csv, path, delimiter, OTHER)


def _read_in(csv: Any, path: Path, delimiter: str, encoding: str) -> Any:
    """Read all columns as text, so that all rows of a column determine its type."""
    size = min(max(size_of(path), SMALLEST_BLOCK), LARGEST_BLOCK)  # a block has to hold the header
    options = _options(csv, size, delimiter, encoding)
    convert = _as_text(csv, path, options)
    with open_unpacked(path) as file:
        return csv.read_csv(file, convert_options=convert, **options)


def _options(csv: Any, size: int, delimiter: str, encoding: str) -> dict[str, Any]:
    return {
        # with threads, errors do not name the row; with many blocks, a wide table has many pieces of few rows
        "read_options": csv.ReadOptions(use_threads=False, block_size=size, encoding=encoding),
        "parse_options": csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
    }


def _as_text(csv: Any, path: Path, options: dict[str, Any]) -> Any:
    # opened here, because Arrow requires file names in UTF-8
    with open_unpacked(path) as file, csv.open_csv(file, **options) as reader:
        return csv.ConvertOptions(column_types=dict.fromkeys(reader.schema.names, "string"))


def _is_of_encoding(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or "UTF8" in str(error)
