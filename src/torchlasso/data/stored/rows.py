"""The interface of rows on a disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.frame import Array

FEW = 1 << 31  # rows whose numbers 32 bits hold
S = TypeVar("S", bound="StoredRows")


class StoredRows(ABC):
    """Rows on a disk, of which any are read as a tensor.

    Attributes:
        count: the number of rows in the file.
        each: the shape of a row.
        dtype: of the tensors: float32, or uint8 for images.
        index: the numbers of the rows in the file, in their order; None for all.
    """

    dtype: torch.dtype = torch.float32

    def __init__(self, count: int, each: tuple[int, ...]) -> None:
        self.count, self.each = count, each
        self.index: Array | None = None

    @abstractmethod
    def read(self, places: Array) -> Tensor:
        """Read rows by their numbers in the file, (k, …)."""

    @property
    def shape(self) -> torch.Size:
        """(n, …)."""
        return torch.Size((len(self), *self.each))

    @property
    def device(self) -> torch.device:
        """The CPU, where rows are read to."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return self.count if self.index is None else len(self.index)

    def places(self, rows: Tensor | slice) -> Array:
        """Return the numbers in the file of some of the rows."""
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self))) if self.index is None else self.index[rows]
        chosen = rows.cpu().numpy()
        return chosen if self.index is None else self.index[chosen]

    def rows(self: S, index: Array | Tensor) -> S:
        """Select rows by their numbers; nothing is read."""
        found = copy(self)
        found.index = row_numbers(self.places(torch.as_tensor(index)), self.count)
        return found

    def widened(self: S, channels: int) -> S:
        """Return grey images as images of several channels, all the same; return other rows unchanged."""
        if len(self.each) != 3 or self.each[0] != 1:
            return self
        found = copy(self)
        found.each = (channels, *self.each[1:])
        return found

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self.read(self.places(rows))


def row_numbers(index: Array, count: int) -> Array:
    """Return numbers of rows, of which there are ``count``, as 32 bits if these suffice: half of the memory."""
    return index.astype(np.int32 if count < FEW else np.int64, copy=False)
