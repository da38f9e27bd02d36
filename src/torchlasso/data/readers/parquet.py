"""Parquet files: images in the Hugging Face layout, or numeric columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.memory import available, need_memory
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.registry import register
from torchlasso.data.stored.columnar import ParquetFiles, opened_parquet
from torchlasso.data.stored.parts import memory_of, stored_table_part
from torchlasso.data.table_files import TableReader

MOST_ROWS = 1 << 16  # the most rows read at a time
NUMBERS = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE")  # physical types whose values have a fixed length
LARGEST_NUMBER = 12  # bytes


@register
class Parquet(TableReader):
    """``image: {bytes, path}`` and a label, or numbers and a label."""

    form = "FILE.parquet"
    suffix = ".parquet"

    def on_disk(self, paths: Sequence[Path], columns: ColumnSelection) -> dict[str, Any]:
        def table() -> ParquetFiles:
            return ParquetFiles(paths)

        return {
            "size": lambda: memory_of(table(), columns),
            "stored": lambda stream: stored_table_part(table(), columns, stream),
        }

    def table(self, path: Path, notes: list[str]) -> Any:
        pa = require("pyarrow", "data", f"{path}: reading Parquet")
        with opened_parquet(path) as file:
            return _read(pa, file, str(path))


def _read(pa: Any, file: Any, origin: str) -> Any:
    """Read a table a few rows at a time, since a few bytes can encode any number of equal or long values."""
    found = file.metadata
    need_memory(8 * found.num_rows * found.num_columns, origin)
    rows = min(MOST_ROWS, max(1, available() // (4 * _longest_value(found))))
    batches, held = [], 0
    for batch in file.iter_batches(batch_size=rows):
        held += batch.nbytes
        need_memory(held, origin)  # a copy, as images or numbers
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _longest_value(found: Any) -> int:
    """Return the most bytes that a value of a row can have, by the metadata of the file."""
    columns = [found.schema.column(j) for j in range(found.num_columns)]
    # a text or a list is at most as long as the stored bytes of its column
    long = [j for j, each in enumerate(columns) if each.max_repetition_level or each.physical_type not in NUMBERS]
    groups = (found.row_group(i) for i in range(found.num_row_groups))
    sizes: list[int] = [group.column(j).total_uncompressed_size for group in groups for j in long]
    return max([LARGEST_NUMBER, *sizes])
