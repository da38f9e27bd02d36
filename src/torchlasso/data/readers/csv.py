"""CSV files: a header, and rows of numbers and text."""

from __future__ import annotations

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


@register
class Csv(FileReader):
    """Comma-separated, UTF-8, names in the first line."""

    form = "FILE.csv"
    suffix = ".csv"

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
        try:
            table = _read_text(csv, path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(
                f"{path}: not a CSV file with a header and rows of one length ({first_line(error)})"
            ) from error
        return table_part(table, columns, str(path))


def _read_text(csv: Any, path: Path) -> Any:
    """Read all columns as text, so that all rows of a column determine its type."""
    size = min(max(path.stat().st_size, SMALLEST_BLOCK), LARGEST_BLOCK)  # a block has to hold the header
    options = {
        # with threads, errors do not name the row; with many blocks, a wide table has many pieces of few rows
        "read_options": csv.ReadOptions(use_threads=False, block_size=size),
        "parse_options": csv.ParseOptions(newlines_in_values=True),
    }
    # opened here, because Arrow requires file names in UTF-8
    with path.open("rb") as file, csv.open_csv(file, **options) as reader:
        names = reader.schema.names
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    with path.open("rb") as file:
        return csv.read_csv(file, convert_options=convert, **options)
