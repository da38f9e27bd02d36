"""Numbers of words in an Arrow file, of which any rows become a padded batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso.data.frame import Array
from torchlasso.data.stored.cache import opened
from torchlasso.data.stored.rows import StoredRows
from torchlasso.data.tokens import TokenCounts, Tokens

NUMBERS, ROWS = 1 << 20, 1 << 16  # of a batch of the file, at most about
NAMES = ("tokens", "known", "written")  # the columns of the file: see Tokens


class _Batch(NamedTuple):
    """The mapped columns of a batch of the file.

    Attributes:
        first: the number of its first row.
        values: the numbers of all its rows, one row after the other.
        ends: where the first row begins and each row ends among these.
        known, written: of each row, as in :class:`~torchlasso.data.tokens.Tokens`.
    """

    first: int
    values: Array
    ends: Array
    known: Array
    written: Array

    def row(self, place: int) -> Array:
        within = place - self.first
        return self.values[self.ends[within] : self.ends[within + 1]]


class StoredTokens(StoredRows):
    """Rows of numbers of words in an Arrow file, which is memory-mapped, padded with 0 when they are read.

    Args:
        path: a file of :func:`write_tokens`.
        count: the number of rows.
        longest: the most numbers that any row may have.
    """

    dtype = torch.int64

    def __init__(self, path: Path, count: int, longest: int) -> None:
        super().__init__(count, (longest,))
        self.path = path
        self._mapped: tuple[list[_Batch], Array] | None = None  # and the number of the first row of each

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}  # each process maps the file itself

    def read(self, places: Array) -> Tensor:
        batches, firsts = self._batches()
        of = np.searchsorted(firsts, places, side="right") - 1
        rows = [batches[i].row(place) for i, place in zip(of.tolist(), places.tolist(), strict=True)]
        found = np.zeros((len(rows), max([1, *map(len, rows)])), dtype=np.int64)
        for padded, row in zip(found, rows, strict=True):
            padded[: len(row)] = row
        return torch.from_numpy(found)

    def counts(self) -> TokenCounts:
        """Count the words of all rows."""
        found = TokenCounts()
        for batch, here in self._chosen():
            found += TokenCounts.of(np.diff(batch.ends)[here], batch.known[here], batch.written[here])
        return found

    def widest(self) -> int:
        """Return the most words of a row."""
        return max((int(np.diff(batch.ends)[here].max(initial=0)) for batch, here in self._chosen()), default=0)

    def _chosen(self) -> Iterator[tuple[_Batch, Array | slice]]:
        """Yield the batches of the file, and the places of the rows in each."""
        batches, firsts = self._batches()
        if self.index is None:
            yield from ((batch, slice(None)) for batch in batches)
            return
        places = np.sort(self.index)
        bounds = [*np.searchsorted(places, firsts).tolist(), len(places)]
        for batch, start, end in zip(batches, bounds, bounds[1:], strict=False):
            yield batch, places[start:end] - batch.first

    def _batches(self) -> tuple[list[_Batch], Array]:
        if self._mapped is None:
            file, first, found = opened(self.path), 0, list[_Batch]()
            for i in range(file.num_record_batches):
                tokens, known, written = (file.get_batch(i).column(name) for name in NAMES)
                values, ends = (each.to_numpy(zero_copy_only=True) for each in (tokens.values, tokens.offsets))
                found.append(_Batch(first, values, ends, known.to_numpy(), written.to_numpy()))
                first += len(known)
            self._mapped = found, np.array([batch.first for batch in found])
        return self._mapped


def write_tokens(some: Iterator[Tokens], file: BinaryIO) -> None:
    """Write the numbers of the words of texts, some texts at a time, to an open file."""
    pa = require("pyarrow", "data", "writing texts")
    kinds = (pa.list_(pa.int32()), pa.int32(), pa.int32())
    with pa.ipc.new_file(file, pa.schema([*zip(NAMES, kinds, strict=True)])) as writer:
        for held in _gathered(some):
            names = ("values", "read", "known", "written")
            values, read, known, written = (np.concatenate([getattr(each, name) for each in held]) for name in names)
            ends = np.concatenate([np.zeros(1, dtype=np.int32), read.cumsum().astype(np.int32)])
            rows = pa.ListArray.from_arrays(pa.array(ends), pa.array(values))
            counts = (pa.array(each.astype(np.int32)) for each in (known, written))
            writer.write_batch(pa.record_batch([rows, *counts], names=[*NAMES]))


def _gathered(some: Iterator[Tokens]) -> Iterator[list[Tokens]]:
    """Yield as many texts at a time as a batch of the file has."""
    held, numbers, rows = list[Tokens](), 0, 0
    for each in some:
        held.append(each)
        numbers, rows = numbers + len(each.values), rows + len(each.read)
        if numbers >= NUMBERS or rows >= ROWS:
            yield held
            held, numbers, rows = [], 0, 0
    if held:
        yield held
