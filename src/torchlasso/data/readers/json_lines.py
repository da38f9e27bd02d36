"""JSON lines: an object in each line, with the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchlasso._core.memory import need_memory
from torchlasso.data.compressed import either, size_of
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.registry import register
from torchlasso.data.stored.columnar import ParquetFiles
from torchlasso.data.stored.json_blocks import json_as_parquet, json_as_table
from torchlasso.data.stored.parts import stored_table_part
from torchlasso.data.table_files import TableReader

MEMORY = 4  # bytes of memory per byte of a file, about


@register
class JsonLines(TableReader):
    """``{"text": "…", "label": "…"}`` in each line."""

    form = "FILE.jsonl"
    suffix = either(".jsonl", ".ndjson")

    def table(self, path: Path, notes: list[str]) -> Any:
        need_memory(MEMORY * size_of(path), str(path))
        return json_as_table(path)

    def on_disk(self, paths: Sequence[Path], columns: ColumnSelection) -> dict[str, Any]:
        return {
            "size": lambda: sum(MEMORY * size_of(path) for path in paths),
            "stored": lambda stream: stored_table_part(
                ParquetFiles([*map(json_as_parquet, paths)], [*map(str, paths)]), columns, stream
            ),
        }
