"""Numbers of tables in an Arrow file, row by row, so that any rows are read quickly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso.data.frame import Array
from torchlasso.data.stored.cache import opened
from torchlasso.data.stored.rows import StoredRows

AT_ONCE = 1 << 22  # numbers of a batch of the file
NAME = "x"


class StoredNumbers(StoredRows):
    """Rows of float32 in an Arrow file, which is memory-mapped.

    Args:
        path: a file of :func:`write_numbers`.
        count: the number of rows.
        inputs: the numbers of a row.
    """

    def __init__(self, path: Path, count: int, inputs: int) -> None:
        super().__init__(count, (inputs,))
        self.path = path
        self._views: list[Array] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_views": None}  # each process maps the file itself

    def read(self, places: Array) -> Tensor:
        if self._views is None:
            self._views = _views(self.path, self.each[0])
        size = len(self._views[0]) if self._views else 1
        if len(places) and (places[0] // size == places[-1] // size) and (np.diff(places) == 1).all():
            first = places[0] % size  # rows in a row: a single copy
            return torch.from_numpy(self._views[places[0] // size][first : first + len(places)].copy())
        found = np.empty((len(places), *self.each), dtype=np.float32)
        batch, within = np.divmod(places, size)
        for index in np.unique(batch).tolist():
            here = batch == index
            found[here] = self._views[index][within[here]]
        return torch.from_numpy(found)


def _views(path: Path, inputs: int) -> list[Array]:
    file = opened(path)
    columns = (file.get_batch(i).column(NAME).flatten() for i in range(file.num_record_batches))
    return [column.to_numpy(zero_copy_only=True).reshape(-1, inputs) for column in columns]


def write_numbers(chunks: Iterator[Tensor], inputs: int, file: BinaryIO) -> None:
    """Write rows of numbers, of which there may be any number in a chunk.

    Args:
        chunks: float32, (k, inputs).
        inputs: the numbers of a row.
        file: an open file.
    """
    pa = require("pyarrow", "data", "writing tables")
    kind = pa.list_(pa.float32(), inputs)
    size = max(1, AT_ONCE // inputs)  # all batches have as many rows, but the last
    with pa.ipc.new_file(file, pa.schema([(NAME, kind)])) as writer:
        for rows in _resized(chunks, size):
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows.numpy().reshape(-1)), inputs)
            writer.write_batch(pa.record_batch([column], names=[NAME]))


def _resized(chunks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows, ``size`` at a time."""
    held, count = list[Tensor](), 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        while count >= size:
            rows = torch.cat(held)
            yield rows[:size].contiguous()
            held, count = [rows[size:].clone()], count - size
    if count:
        yield torch.cat(held).contiguous()
