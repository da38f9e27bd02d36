"""Parquet files: images in the Hugging Face layout, or numeric columns."""

from __future__ import annotations

from pathlib import Path

from torchlasso._core.extras import require
from torchlasso.data.labels import Columns
from torchlasso.data.messages import one_line
from torchlasso.data.records import Part
from torchlasso.data.registry import FileReader, register
from torchlasso.data.tables import table_part


@register
class Parquet(FileReader):
    """``image: {bytes, path}`` and a label, or numbers and a label."""

    form = "FILE.parquet"
    suffix = ".parquet"

    def read(self, path: Path, columns: Columns) -> Part:
        pa = require("pyarrow", "data", f"{path}: reading Parquet")
        parquet = require("pyarrow.parquet", "data", f"{path}: reading Parquet")
        try:
            with parquet.ParquetFile(path) as file:
                table = file.read()
        except (OSError, ValueError, MemoryError, OverflowError, pa.ArrowException) as error:
            raise ValueError(f"{path}: not a Parquet file, or a damaged one ({one_line(error)})") from error
        return table_part(table, columns, str(path))
