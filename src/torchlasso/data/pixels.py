"""Images that stay bytes in memory, and become scaled numbers when a batch is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from torchlasso.data.records import unit_interval
from torchlasso.data.standardizer import Standardizer

LEVELS, AT_ONCE = 256, 1 << 12  # images whose bytes are counted at once


class Pixels:
    """Images of bytes, of which any rows are taken as scaled numbers: (bytes / 255 − mean) / std.

    They are :class:`~torchlasso.training.rows.InputRows`.

    Args:
        data: uint8, (n, channels, height, width).
        scale: the scaling of the channels.

    >>> pixels = Pixels(torch.tensor([[[[0, 255]]], [[[255, 255]]]], dtype=torch.uint8), Standardizer((0.5,), (0.5,)))
    >>> pixels.shape, pixels[1:]
    (torch.Size([2, 1, 1, 2]), tensor([[[[1., 1.]]]]))
    """

    def __init__(self, data: Tensor, scale: Standardizer) -> None:
        self.data, self.scale = data, scale
        self._mean, self._std = scale.along(torch.empty(1, *data.shape[1:], device=data.device))

    @property
    def shape(self) -> torch.Size:
        """(n, channels, height, width)."""
        return self.data.shape

    @property
    def device(self) -> torch.device:
        """The device of the bytes and of the batches."""
        return self.data.device

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        if isinstance(rows, Tensor) and rows.dtype == torch.int64:
            taken = self.data.index_select(0, rows)  # copies whole rows, which is faster
        else:
            taken = self.data[rows]
        return unit_interval(taken).sub_(self._mean).div_(self._std)  # in place, as fast as taking floats


def scale_of_bytes(data: Tensor) -> Standardizer:
    """Compute the mean and standard deviation of each channel of bytes / 255, by counting the bytes.

    A channel that is constant gets the standard deviation 1.

    >>> scale_of_bytes(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    Standardizer(mean=(0.5,), std=(0.5,))
    """
    levels = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
    mean, std = list[float](), list[float]()
    for channel in data.unbind(dim=1):
        counts = torch.zeros(LEVELS, dtype=torch.float64)
        for start in range(0, len(channel), AT_ONCE):
            counts += torch.bincount(channel[start : start + AT_ONCE].flatten(), minlength=LEVELS).cpu()
        share = counts / counts.sum()
        centre = float((share * levels).sum())
        spread = float((share * (levels - centre).square()).sum().sqrt())
        is_constant = int((counts > 0).sum()) == 1
        mean.append(centre)
        std.append(1.0 if is_constant else spread)
    return Standardizer(tuple(mean), tuple(std))
