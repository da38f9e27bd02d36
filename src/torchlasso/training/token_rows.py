"""Texts as rows of numbers of their words, padded by batch."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 1 << 16  # the most words, with padding, of a batch in an evaluation


class TokenRows:
    """Rows of different lengths, of which any become a batch, padded with 0 to the longest of them.

    They are :class:`~torchlasso.training.rows.InputRows`. Four bytes for each number, and eight for each row.

    Args:
        values: the numbers of all rows, one row after the other, int32.
        ends: where each row ends in ``values``, int64 (n,).
        longest: the most numbers that any row may have.

    >>> tokens = TokenRows(torch.tensor([5, 6, 7], dtype=torch.int32), torch.tensor([1, 1, 3]), longest=10)
    >>> tokens[torch.tensor([2, 0])], tokens[1:2], tokens.shape
    (tensor([[6, 7],
            [5, 0]]), tensor([[0]]), torch.Size([3, 10]))
    """

    def __init__(self, values: Tensor, ends: Tensor, longest: int) -> None:
        self.values, self.ends, self.longest = values, ends, longest
        self.starts = torch.cat([ends.new_zeros(1), ends[:-1]]) if len(ends) else ends

    @property
    def shape(self) -> torch.Size:
        """(n, longest)."""
        return torch.Size((len(self.ends), self.longest))

    @property
    def device(self) -> torch.device:
        """The device of the numbers and of the batches."""
        return self.values.device

    @property
    def lengths(self) -> Tensor:
        """The number of words of each row, (n,)."""
        return self.ends - self.starts

    @property
    def at_once(self) -> int:
        """The rows that are evaluated at once."""
        return rows_at_once(int(self.lengths.max()) if len(self) else 1)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        starts, lengths = self.starts[rows], self.lengths[rows]
        places = torch.arange(max(1, int(lengths.max()) if len(lengths) else 1), device=self.device)
        is_there = places < lengths[:, None]
        where = torch.where(is_there, starts[:, None] + places, 0)
        found = self.values.new_zeros(where.shape) if not len(self.values) else self.values[where]
        return torch.where(is_there, found, 0).long()

    def to(self, device: torch.device) -> TokenRows:
        """Return the rows on a device."""
        return TokenRows(self.values.to(device), self.ends.to(device), self.longest)

    def rows(self, index: Tensor) -> TokenRows:
        """Select rows by their numbers."""
        lengths = self.lengths[index]
        places = torch.arange(int(lengths.sum()), device=self.device)
        ends = lengths.cumsum(0)
        shift = (self.starts[index] - (ends - lengths)).repeat_interleave(lengths)
        return TokenRows(self.values[places + shift], ends, self.longest)


def rows_at_once(widest: int) -> int:
    """Return the rows of texts that are evaluated at once, by the most words of one."""
    return max(1, AT_ONCE // max(1, widest))
