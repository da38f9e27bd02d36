"""CSV files: a header, numbers, and a label column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.registry import FileReader, register
from torchlasso.data.tables import table_part

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # in upper or lower case, in numeric columns
INTEGER = r"^[+-]?[0-9]{1,18}$"
AT_ONCE = 1_000_000  # values whose type is found in one call
SMALLEST_BLOCK, LARGEST_BLOCK = 2**20, 2**28  # bytes of text that are read at once
DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity|nan)$"


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
        names = table.column_names
        label = columns.find_label(names, str(path))
        others = [i for i, name in enumerate(names) if name != label]
        typed = _typed(pa, [table.column(i) for i in others], MISSING)
        if label is not None:
            typed.insert(names.index(label), *_typed(pa, [table.column(label)], ("",)))
        return table_part(pa.table(typed, names=names), columns, str(path))


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


def _typed(pa: Any, columns: Sequence[Any], missing: Sequence[str]) -> list[Any]:
    """Convert columns of text to whole or decimal numbers where all values of a column are written as such.

    Many columns are converted at once: a call for each would take longer than the work.
    """
    found: list[Any] = []
    at_once = max(1, AT_ONCE // max(1, len(columns[0]))) if columns else 1
    for start in range(0, len(columns), at_once):
        found += _typed_together(pa, columns[start : start + at_once], missing)
    return found


def _typed_together(pa: Any, columns: Sequence[Any], missing: Sequence[str]) -> list[Any]:
    compute = require("pyarrow.compute", "data", "reading CSV")
    rows = len(columns[0])
    text = pa.chunked_array([chunk for column in columns for chunk in column.iterchunks()], pa.string())
    trimmed = compute.utf8_trim_whitespace(text)
    blank = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array(missing))
    filled = compute.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    kinds = [pa.string()] * len(columns)
    for pattern, kind in ((DECIMAL, pa.float64()), (INTEGER, pa.int64())):
        matches = compute.fill_null(compute.match_substring_regex(filled, pattern), True)
        fits = matches.to_numpy().reshape(len(columns), rows).all(axis=1)
        kinds = [kind if is_fit else before for is_fit, before in zip(fits.tolist(), kinds, strict=True)]
    found, start = list[Any](), 0
    for kind, run in groupby(kinds):
        count = len(list(run))
        values = filled.slice(start * rows, count * rows)
        if kind != pa.string():
            values = compute.replace_substring_regex(values, r"^\+", "").cast(kind)
        found += [values.slice(i * rows, rows) for i in range(count)]
        start += count
    return found
