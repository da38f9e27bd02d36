"""JSON lines: an object in each line, with the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.registry import register
from torchlasso.data.table_files import TableReader

SMALLEST, LARGEST = 1 << 20, 1 << 30  # bytes that are read at once; a line has to fit


@register
class JsonLines(TableReader):
    """``{"text": "…", "label": "…"}`` in each line."""

    form = "FILE.jsonl"
    suffix = (".jsonl", ".ndjson")

    def table(self, path: Path, notes: list[str]) -> Any:
        pa = require("pyarrow", "data", f"{path}: reading JSON lines")
        reader = require("pyarrow.json", "data", f"{path}: reading JSON lines")
        size = path.stat().st_size
        need_memory(4 * size, str(path))
        if not size:
            raise ValueError(f"{path}: an empty file; a line for each row is needed")
        options = reader.ReadOptions(block_size=min(max(size, SMALLEST), LARGEST), use_threads=False)
        try:
            # opened here, because Arrow requires file names in UTF-8
            with path.open("rb") as file:
                parse = reader.ParseOptions(newlines_in_values=False, unexpected_field_behavior="infer")
                return reader.read_json(file, options, parse)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: not JSON lines with an object in each ({first_line(error)})") from error
