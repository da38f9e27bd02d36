"""The inputs of the rows of a training: a tensor, or what makes one of some rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

EVALUATION_BATCH, MOST_NUMBERS = 1024, 1 << 24  # rows, and numbers in them


class InputRows(Protocol):
    """The inputs of rows: a tensor, or an object that makes one for the rows of a batch, such as images on a disk."""

    @property
    def shape(self) -> torch.Size:
        """(n, …)."""

    @property
    def device(self) -> torch.device:
        """The device of the batches."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def to(self, device: torch.device, /) -> InputRows:
        """Return the rows with batches on a device."""

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """Return the inputs of some rows, (k, …)."""


def input_batch(x: InputRows, rows: Tensor) -> Tensor:
    """Return the inputs of some rows, given by their numbers."""
    return x.index_select(0, rows) if isinstance(x, Tensor) else x[rows]  # index_select copies whole rows: faster


@runtime_checkable
class ReadAhead(Protocol):
    """Rows of which batches are read before they are asked for, such as by other processes."""

    def batches(self, rows: Iterable[Tensor], /) -> Iterator[Tensor]:
        """Yield the inputs of one batch of rows after another."""


@runtime_checkable
class OfLengths(Protocol):
    """Rows of different lengths, such as texts."""

    @property
    def at_once(self) -> int:
        """The rows that are evaluated at once."""


@runtime_checkable
class Selectable(Protocol):
    """Rows of which some are rows of the same kind."""

    def rows(self, index: Tensor, /) -> InputRows:
        """Select rows by their numbers."""


def input_batches(x: InputRows, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the inputs of batches of rows, given by their numbers, in order."""
    return x.batches(batches) if isinstance(x, ReadAhead) else (input_batch(x, rows) for rows in batches)


def some_rows(x: InputRows, rows: Tensor) -> InputRows:
    """Return some rows, given by their numbers; texts keep their lengths, and rows on a disk stay there."""
    return x.rows(rows) if isinstance(x, Selectable) else input_batch(x, rows)


def evaluation_batches(x: InputRows) -> list[Tensor]:
    """Return the numbers of all rows in batches; large rows are in smaller ones, to save memory."""
    most = x.at_once if isinstance(x, OfLengths) else MOST_NUMBERS // max(1, x.shape[1:].numel())
    size = max(1, min(EVALUATION_BATCH, most))
    return list(torch.split(torch.arange(len(x), device=x.device), size))
