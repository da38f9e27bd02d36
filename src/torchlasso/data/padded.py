"""Rows of words on a disk that become batches on a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from torchlasso.data.stored.ahead import read_ahead
from torchlasso.data.stored.tokens import StoredTokens
from torchlasso.training.token_rows import rows_at_once


class PaddedRows:
    """Texts on a disk, of which any rows become a batch of numbers of words, padded with 0 to the longest of them.

    They are :class:`~torchlasso.training.rows.InputRows`.

    Args:
        data: the numbers of the words.
        device: of the batches.
        workers: processes that read the batches ahead.
    """

    def __init__(self, data: StoredTokens, device: torch.device | None = None, workers: int = 0) -> None:
        self.data, self.device, self.workers = data, device or data.device, workers

    @property
    def shape(self) -> torch.Size:
        """(n, longest)."""
        return self.data.shape

    @cached_property
    def at_once(self) -> int:
        """The rows that are evaluated at once."""
        return rows_at_once(self.data.widest())

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self.data[rows].to(self.device)

    def to(self, device: torch.device) -> PaddedRows:
        """Return the rows with batches on a device."""
        return PaddedRows(self.data, device, self.workers)

    def rows(self, index: Tensor) -> PaddedRows:
        """Select rows by their numbers; nothing is read."""
        return PaddedRows(self.data.rows(index.cpu().numpy()), self.device, self.workers)

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the inputs of one batch of rows after another."""
        for taken in read_ahead(self.data.read, map(self.data.places, rows), self.workers):
            yield taken.to(self.device)
