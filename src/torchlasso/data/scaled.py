"""Rows that stay bytes in memory, or stay on a disk, and become scaled numbers when a batch is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.frame import Array
from torchlasso.data.records import unit_interval
from torchlasso.data.standardizer import Standardizer
from torchlasso.data.stored.ahead import read_ahead
from torchlasso.data.stored.images import LEVELS, EncodedImages
from torchlasso.data.stored.rows import StoredRows

AT_ONCE = 1 << 12  # images whose bytes are counted at once


class ScaledRows:
    """Rows of bytes, or rows on a disk, of which any are taken as scaled numbers: (bytes / 255 − mean) / std.

    They are :class:`~torchlasso.training.rows.InputRows`.

    Args:
        data: uint8, (n, channels, height, width), or rows on a disk, whose numbers are not divided by 255.
        scale: the scaling of the channels, or of the columns.
        device: of the numbers; None for that of the data.
        workers: processes that read the batches of rows on a disk ahead.

    >>> pixels = torch.tensor([[[[0, 255]]], [[[255, 255]]]], dtype=torch.uint8)
    >>> rows = ScaledRows(pixels, Standardizer((0.5,), (0.5,)))
    >>> rows.shape, rows[1:]
    (torch.Size([2, 1, 1, 2]), tensor([[[[1., 1.]]]]))
    """

    def __init__(
        self, data: Tensor | StoredRows, scale: Standardizer, device: torch.device | None = None, workers: int = 0
    ) -> None:
        self.data, self.scale, self.device, self.workers = data, scale, device or data.device, workers
        self._mean, self._std = scale.along(torch.empty(1, *data.shape[1:], device=self.device))

    @property
    def shape(self) -> torch.Size:
        """(n, …)."""
        return self.data.shape

    def __len__(self) -> int:
        return len(self.data)

    def rows(self, index: Tensor) -> ScaledRows:
        """Select rows by their numbers; those on a disk stay there."""
        data = self.data.rows(index.cpu().numpy()) if isinstance(self.data, StoredRows) else self.data[index]
        return ScaledRows(data, self.scale, self.device, self.workers)

    def to(self, device: torch.device) -> ScaledRows:
        """Return the rows with batches on a device; rows on a disk stay there."""
        data = self.data.to(device) if isinstance(self.data, Tensor) else self.data
        return ScaledRows(data, self.scale, device, self.workers)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        if isinstance(rows, Tensor) and isinstance(self.data, Tensor) and rows.dtype == torch.int64:
            return self._scaled(self.data.index_select(0, rows))  # copies whole rows, which is faster
        return self._scaled(self.data[rows])

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the inputs of one batch of rows after another."""
        if isinstance(self.data, Tensor):
            yield from map(self.__getitem__, rows)
            return
        places = (self.data.places(some) for some in rows)
        yield from map(self._scaled, read_ahead(self.data.read, places, self.workers))

    def _scaled(self, taken: Tensor) -> Tensor:
        numbers = unit_interval(taken.to(self.device))
        # in place, as fast as taking floats; numbers on a disk are new, and bytes have become new numbers
        return numbers.sub_(self._mean).div_(self._std)


def scale_of_bytes(data: Tensor | EncodedImages) -> Standardizer:
    """Compute the mean and standard deviation of each channel of bytes / 255, by counting the bytes.

    A channel that is constant gets the standard deviation 1.

    >>> scale_of_bytes(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    Standardizer(mean=(0.5,), std=(0.5,))
    """
    levels = np.arange(LEVELS) / (LEVELS - 1)
    mean, std = list[float](), list[float]()
    for counts in _byte_counts(data) if isinstance(data, Tensor) else data.byte_counts():
        share = counts / counts.sum()
        centre = float((share * levels).sum())
        spread = float(np.sqrt((share * np.square(levels - centre)).sum()))
        is_constant = int((counts > 0).sum()) == 1
        mean.append(centre)
        std.append(1.0 if is_constant else spread)
    return Standardizer(tuple(mean), tuple(std))


def _byte_counts(data: Tensor) -> Array:
    counts = torch.zeros(data.shape[1], LEVELS, dtype=torch.int64)
    for channel, total in zip(data.unbind(dim=1), counts, strict=True):
        for start in range(0, len(channel), AT_ONCE):
            total += torch.bincount(channel[start : start + AT_ONCE].flatten(), minlength=LEVELS).cpu()
    return counts.numpy()
