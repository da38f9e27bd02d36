"""Files of tables, of which several are one table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso.data.joining import joined_tables, origin_of
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.registry import FileReader
from torchlasso.data.tables import table_part


class TableReader(FileReader):
    """Files of tables; the kind of a column is decided by the rows of all files."""

    @abstractmethod
    def table(self, path: Path, notes: list[str]) -> Any:
        """Read a file as a ``pyarrow.Table``, and add what a person should know to ``notes``.

        Raises:
            ValueError: it is damaged, or of another kind.
        """

    def read_all(self, paths: Sequence[Path], columns: ColumnSelection) -> Part:
        pa = require("pyarrow", "data", f"{paths[0]}: reading tables")
        notes, origins = list[str](), [str(path) for path in paths]
        table = joined_tables(pa, [self.table(path, notes) for path in paths], origins)
        part = table_part(table, columns, origin_of(origins))
        return replace(part, notes=(*part.notes, *notes))
