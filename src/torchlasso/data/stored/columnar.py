"""Tables on a disk, of which single columns, or some rows at a time, are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.memory import need_memory
from torchlasso._core.text import first_line
from torchlasso.data.joining import common_schema, origin_of, with_schema
from torchlasso.data.stored.cache import state_of
from torchlasso.data.stored.footers import Footer

AT_ONCE = 1 << 24  # bytes of a table that are read at a time, about
BUFFER = 1 << 16  # bytes of a column of a Parquet file that are read at a time


class Columnar(ABC):
    """A table on a disk.

    Attributes:
        origin: its name in messages.
        schema: a ``pyarrow.Schema``.
        count: the number of rows.
        size: the bytes of its values, not compressed, about.
        state: what changes when the table changes, for keys of the cache.
        has_paths: whether an image without bytes may be read from its path.
    """

    origin: str
    schema: Any
    count: int
    size: int
    state: list[Any]
    has_paths = False

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return list(self.schema.names)

    @abstractmethod
    def select(self, names: list[str]) -> Any:
        """Read some columns, as a ``pyarrow.Table``."""

    def columns(self, names: list[str]) -> Iterator[Any]:
        """Yield one column after another, as tables; as many are read at a time as take little memory."""
        each = max(8 * self.count, self.size // max(1, len(self.names)))
        at_once = max(1, AT_ONCE // max(1, each))
        for start in range(0, len(names), at_once):
            found = self.select(names[start : start + at_once])
            for name in found.column_names:
                yield found.select([name])

    @abstractmethod
    def _some(self, names: list[str], rows: int) -> Iterator[Any]:
        """Yield ``rows`` rows at a time, as tables with the columns of ``names``."""

    def batches(self, names: list[str]) -> Iterator[Any]:
        """Yield all rows, as many at a time as take little memory, as tables with the columns of ``names``."""
        each = max(1, self.size // max(1, self.count))
        return self._some(names, max(1, min(1 << 16, AT_ONCE // each)))


class ParquetFiles(Columnar):
    """Parquet files with the same columns, in order.

    Args:
        paths: the files.
        origins: their names in messages; by default their paths.

    Raises:
        ValueError: a file is damaged, or has other columns than the first one.
    """

    def __init__(self, paths: Sequence[Path], origins: Sequence[str] = ()) -> None:
        self.paths, origins = list(paths), origins or [str(path) for path in paths]
        self.origin = origin_of(origins)
        self.state = [state_of(path) for path in paths]
        pa = require("pyarrow", "data", f"{self.origin}: reading Parquet")
        self._footers = {path: _footer(pa, path) for path in self.paths}
        self.count = sum(footer.rows for footer in self._footers.values())
        self.size = sum(footer.size for footer in self._footers.values())
        self.schema = common_schema(pa, [self._footers[path].schema for path in self.paths], origins)

    def select(self, names: list[str]) -> Any:
        pa = require("pyarrow", "data", f"{self.origin}: reading Parquet")
        need_memory(8 * self.count * len(names), self.origin)
        tables = []
        for path in self.paths:
            with opened_parquet(path, partial(self._footers[path].metadata, names)) as file:
                tables.append(with_schema(pa, file.read(), self._of(pa, names)))
        return pa.concat_tables(tables)

    def _some(self, names: list[str], rows: int) -> Iterator[Any]:
        pa = require("pyarrow", "data", f"{self.origin}: reading Parquet")
        for path, footer in self._footers.items():
            for groups in footer.runs(names):
                with opened_parquet(path, partial(footer.metadata, names, groups)) as file:
                    for batch in file.iter_batches(batch_size=rows):
                        yield with_schema(pa, pa.Table.from_batches([batch]), self._of(pa, names))

    def _of(self, pa: Any, names: list[str]) -> Any:
        return pa.schema([self.schema.field(name) for name in names])


def _footer(pa: Any, path: Path) -> Footer:
    try:
        return Footer(path)
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a Parquet file, or a damaged one ({first_line(error)})")


@contextmanager
def opened_parquet(path: Path, footer: Callable[[], Any] | None = None) -> Iterator[Any]:
    """Open a Parquet file, of which no more is held than is being read.

    Args:
        path: the file.
        footer: a function that returns its footer, or a part of it; None to read it.

    Yields:
        A ``pyarrow.parquet.ParquetFile``.

    Raises:
        ValueError: it is damaged.
    """
    pa = require("pyarrow", "data", f"{path}: reading Parquet")
    parquet = require("pyarrow.parquet", "data", f"{path}: reading Parquet")
    # without buffers Arrow holds whole row groups, such as a whole file; with pre_buffer, all that was read
    how = {"pre_buffer": False, "buffer_size": BUFFER}
    try:
        how |= {} if footer is None else {"metadata": footer()}
        # opened here, because Arrow requires file names in UTF-8
        with path.open("rb") as content, parquet.ParquetFile(content, **how) as file:
            yield file
    except (OSError, OverflowError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


class HubColumns(Columnar):
    """A split of a data set of ``datasets``, which is memory-mapped."""

    has_paths = True

    def __init__(self, split: Any, origin: str) -> None:
        self.split, self.origin = split, origin
        self.schema, self.count = split.features.arrow_schema, len(split)
        files = [Path(file["filename"]) for file in split.cache_files]
        self.state = [*map(state_of, files), str(split.split)]
        self.size = sum(path.stat().st_size for path in files)

    def select(self, names: list[str]) -> Any:
        return self.split.select_columns(names).with_format("arrow")[:]

    def _some(self, names: list[str], rows: int) -> Iterator[Any]:
        yield from self.split.select_columns(names).with_format("arrow").iter(batch_size=rows)
