"""CSV files: a header, numbers, and a label column."""

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

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # in upper or lower case, in numeric columns
INTEGER = r"^[+-]?[0-9]{1,18}$"
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
        typed = [_typed(pa, table.column(name), is_label=name == label) for name in names]
        return table_part(pa.table(typed, names=names), columns, str(path))


def _read_text(csv: Any, path: Path) -> Any:
    """Read all columns as text, so that all rows of a column determine its type."""
    options = {
        "read_options": csv.ReadOptions(use_threads=False),  # with threads, errors do not name the row
        "parse_options": csv.ParseOptions(newlines_in_values=True),
    }
    # opened here, because Arrow requires file names in UTF-8
    with path.open("rb") as file, csv.open_csv(file, **options) as reader:
        names = reader.schema.names
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    with path.open("rb") as file:
        return csv.read_csv(file, convert_options=convert, **options)


def _typed(pa: Any, column: Any, is_label: bool) -> Any:
    """Convert a column of text to whole or decimal numbers if all its values are written as such."""
    compute = require("pyarrow.compute", "data", "reading CSV")
    trimmed = compute.utf8_trim_whitespace(column)
    missing = ("",) if is_label else MISSING
    blank = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array(missing))
    filled = compute.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    for pattern, kind in ((INTEGER, pa.int64()), (DECIMAL, pa.float64())):
        if compute.all(compute.match_substring_regex(filled, pattern)).as_py() is not False:
            return compute.replace_substring_regex(filled, r"^\+", "").cast(kind)
    return filled
