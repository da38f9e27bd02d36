"""CSV files: a header, and rows of numbers and text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.registry import FileReader, register
from torchlasso.data.tables import table_part

SMALLEST_BLOCK, LARGEST_BLOCK = 2**20, 2**28  # bytes of text that are read at once
DELIMITERS = (",", ";", "\t", "|")
COMMA = r"^\s*([+-]?[0-9]*),([0-9]+([eE][+-]?[0-9]+)?)\s*$"  # a number with a decimal comma
OTHER = "cp1252"  # the encoding of text that is not UTF-8: of Windows, and nearly Latin-1


@register
class Csv(FileReader):
    """Comma-separated (or by semicolons, tabs or bars), with names in the first line."""

    form = "FILE.csv"
    suffix = (".csv", ".tsv")

    def read(self, path: Path, columns: ColumnSelection) -> Part:
        pa = require("pyarrow", "data", f"{path}: reading CSV")
        csv = require("pyarrow.csv", "data", f"{path}: reading CSV")
        need_memory(8 * path.stat().st_size, str(path))  # the text, and a number of 64 bits for every two characters
        with path.open("rb") as file:
            head = file.read(4096)
        if not head.strip():
            raise ValueError(f"{path}: an empty file; a header and rows are needed")
        if b"\0" in head:
            raise ValueError(f"{path}: not a CSV file: it is binary, not text in UTF-8")
        delimiter, notes = _delimiter(head), list[str]()
        try:
            table = _read_text(pa, csv, path, delimiter, notes)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(
                f"{path}: not a CSV file with a header and rows of one length ({first_line(error)})"
            ) from error
        if delimiter != ",":
            table = _with_points(pa, table)
        return replace(table_part(table, columns, str(path)), notes=tuple(notes))


def _delimiter(head: bytes) -> str:
    """Return the delimiter that is most frequent in the header, outside quotes."""
    names = re.sub(r'"[^"]*"', "", head.decode("utf8", "replace").lstrip("\ufeff\r\n ").splitlines()[0])
    return max(DELIMITERS, key=names.count)


def _with_points(pa: Any, table: Any) -> Any:
    """Write numbers with decimal commas with points, as files with other delimiters have them in much of Europe."""
    compute = require("pyarrow.compute", "data", "reading CSV")
    columns = [compute.replace_substring_regex(column, COMMA, r"\1.\2") for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _read_text(pa: Any, csv: Any, path: Path, delimiter: str, notes: list[str]) -> Any:
    """Read all columns as text, and note another encoding than UTF-8."""
    try:
        return _read_in(csv, path, delimiter, "utf8")
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if not isinstance(error, UnicodeDecodeError) and "UTF8" not in str(error):
            raise
    notes.append(f"{path} is not UTF-8; it is read as {OTHER}.")
    return _read_in(csv, path, delimiter, OTHER)


def _read_in(csv: Any, path: Path, delimiter: str, encoding: str) -> Any:
    """Read all columns as text, so that all rows of a column determine its type."""
    size = min(max(path.stat().st_size, SMALLEST_BLOCK), LARGEST_BLOCK)  # a block has to hold the header
    options = {
        # with threads, errors do not name the row; with many blocks, a wide table has many pieces of few rows
        "read_options": csv.ReadOptions(use_threads=False, block_size=size, encoding=encoding),
        "parse_options": csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
    }
    # opened here, because Arrow requires file names in UTF-8
    with path.open("rb") as file, csv.open_csv(file, **options) as reader:
        names = reader.schema.names
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    with path.open("rb") as file:
        return csv.read_csv(file, convert_options=convert, **options)
