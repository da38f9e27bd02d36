"""The columns of a table on a disk, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso._core.memory import trim
from torchlasso.data.encoding import Encoding
from torchlasso.data.frame import Array, Category, Frame, TableColumns
from torchlasso.data.stored.cache import kept_file, key_of
from torchlasso.data.stored.columnar import Columnar
from torchlasso.data.stored.rows import row_numbers
from torchlasso.data.stored.values import StoredNumbers, write_numbers
from torchlasso.data.tables import table_frame


class StoredFrame(TableColumns):
    """The columns of a table on a disk: numbers with gaps, and categories.

    All columns are read once at the start, one at a time, to learn their kinds, by the same rules as in memory.

    Args:
        table: the table.
        read: the columns that are inputs.
        categories: those of them whose numbers are categories.

    Raises:
        ValueError: a column is of another kind, has infinite numbers, or mixes numbers and text.
    """

    def __init__(self, table: Columnar, read: list[str], categories: tuple[str, ...]) -> None:
        self.table, self.read, self.forced = table, read, categories
        self.index: Array | None = None
        self._with_gaps, self._of_categories, self._dates = set[str](), list[str](), list[str]()
        self.origins: dict[str, str] = {}
        self.coarse: tuple[str, ...] = ()
        self._of_column: dict[str, tuple[str, ...]] = {}
        self._last: tuple[str, Frame] | None = None
        for column, frame in self._each(read):
            self._of_column[column] = frame.names
            self.origins |= frame.origins
            self.coarse += frame.coarse
            self._of_categories += frame.categories
            if len(frame.names) > 1:
                self._dates.append(column)
            if frame.gaps:
                self._with_gaps.add(column)
        self.names = tuple(name for names in self._of_column.values() for name in names)
        self.categories: Mapping[str, Category] = _Lazily(self._of_categories, self.category)

    def __len__(self) -> int:
        return self.table.count if self.index is None else len(self.index)

    def rows(self, index: Array) -> StoredFrame:
        """Select rows by their numbers; nothing is read."""
        found = copy(self)
        found.index = row_numbers(index, len(self)) if self.index is None else self.index[index]
        found.categories = _Lazily(self._of_categories, found.category)
        return found

    @property
    def is_plain(self) -> bool:
        """True if there are only numbers, without gaps."""
        return not self._of_categories and not self._with_gaps

    @property
    def numeric(self) -> tuple[str, ...]:
        categories = {*self._of_categories}
        return tuple(name for name in self.names if name not in categories)

    @property
    def gaps(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for _, frame in self._each([column for column in self.read if column in self._with_gaps]):
            found |= self._chosen(frame).gaps
        return {name: found[name] for name in self.names if name in found}

    def columns_of_numbers(self) -> Iterator[tuple[str, Array]]:
        for _, frame in self._each(self.read):
            yield from self._chosen(frame).columns_of_numbers()

    def category(self, name: str) -> Category:
        return self._chosen(self._column(self.origins.get(name, name))).category(name)

    def numbers(self, names: tuple[str, ...]) -> StoredNumbers:
        """Write a table of plain numbers row by row, with the columns in the order of ``names``."""
        pa = require("pyarrow", "data", "reading tables")
        order = {name: place for place, name in enumerate(self.read)}
        places = [order[name] for name in names]

        def chunks() -> Iterator[Tensor]:
            for table in self.table.batches(self.read):
                yield torch.from_numpy(self._framed(pa, table).numbers[:, places])

        return self._written(chunks(), len(names), ["numbers", names])

    def encoded(self, encoding: Encoding) -> StoredNumbers:
        """Write the inputs that an encoding makes of the columns, row by row."""
        pa = require("pyarrow", "data", "reading tables")
        encoding.refuse_others(self, self.table.origin)

        def chunks() -> Iterator[Tensor]:
            for table in self.table.batches(self.read):
                yield encoding(encoding.aligned(self._framed(pa, table), self.table.origin))

        return self._written(chunks(), len(encoding.features), ["encoding", asdict(encoding)])

    def _written(self, chunks: Iterator[Tensor], inputs: int, how: list[Any]) -> StoredNumbers:
        key = key_of("numbers", self.table.state, self.read, self.forced, how)
        write = partial(write_numbers, chunks, inputs)
        path = kept_file(key, ".arrow", write, 4 * self.table.count * inputs, self.table.origin)
        require("pyarrow", "data", "reading tables").default_memory_pool().release_unused()  # pages of all columns
        trim()
        found = StoredNumbers(path, self.table.count, inputs)
        return found if self.index is None else found.rows(self.index)

    def _framed(self, pa: Any, table: Any) -> Frame:
        """Return the columns of some rows, of the kinds that they have in all rows."""
        forced = (*self.forced, *(name for name in self._of_categories if name not in self.origins))
        return table_frame(pa, table, forced, self.table.origin, dates=tuple(self._dates))

    def _each(self, columns: list[str]) -> Iterator[tuple[str, Frame]]:
        """Yield columns of the file with all rows of each."""
        for column, table in zip(columns, self.table.columns(columns), strict=True):
            yield column, self._alone(column, table)

    def _column(self, name: str) -> Frame:
        """Return all rows of a column of the file; the last one is kept."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._alone(name, self.table.select([name]))
        return self._last[1]

    def _alone(self, name: str, table: Any) -> Frame:
        pa = require("pyarrow", "data", "reading tables")
        return table_frame(pa, table, (name,) if name in self.forced else (), self.table.origin)

    def _chosen(self, frame: Frame) -> Frame:
        return frame if self.index is None else frame.rows(self.index)


class _Lazily(Mapping[str, Category]):
    """Columns of categories that are read when they are asked for."""

    def __init__(self, names: list[str], read: Any) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> Category:
        if name not in self._names:
            raise KeyError(name)
        found: Category = self._read(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
