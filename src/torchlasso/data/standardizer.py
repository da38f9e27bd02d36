"""Inputs scaled to mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.data.stored.rows import StoredRows

CLOSE = 1e-4  # relative to the deviation; sums on another machine differ by far less
_ROWS, _NUMBERS = 4096, 1 << 22  # rows, and numbers in them, at a time in double precision


@dataclass(frozen=True)
class Standardizer:
    """(x − mean) / std, per channel of images and per feature of tables.

    Args:
        mean: one number per channel or feature.
        std: the same, above 0.

    Raises:
        ValueError: the lengths differ, or a ``std`` is not above 0.

    >>> scale = Standardizer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> scale(torch.tensor([[4.0, 5.0]]))
    tensor([[2., 0.]])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one length, got {len(self.mean)} and {len(self.std)}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0, got {min(self.std)}")

    @classmethod
    def fit(cls, x: Tensor | StoredRows) -> Standardizer:
        """Compute the mean and standard deviation of ``x``, (n, channels, ...) or (n, features).

        A channel or feature that is constant gets the standard deviation 1.

        Raises:
            ValueError: ``x`` has no rows or fewer than two dimensions.
        """
        if len(x.shape) < 2 or len(x) == 0:
            raise ValueError(f"x must have the shape (n, channels or features, ...), got {tuple(x.shape)}")
        count = x.shape.numel() // x.shape[1]
        mean = _sum_of_powers(x, torch.zeros(x.shape[1]), 1) / count
        std = (_sum_of_powers(x, mean, 2) / count).sqrt()
        std[_constant(x) | (std == 0)] = 1.0
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, x: Tensor) -> Tensor:
        """Scale ``x``, in its own dtype and on its own device.

        Raises:
            ValueError: ``x`` has another number of channels or features.
        """
        if x.dim() < 2 or x.shape[1] != len(self.mean):
            wanted = f"(n, {len(self.mean)}, ...)"
            raise ValueError(f"x must have the shape {wanted}, got {tuple(x.shape)}")
        mean, std = self.along(x)
        return (x - mean) / std

    def undone(self, x: Tensor) -> Tensor:
        """Undo the scaling of ``x``.

        >>> Standardizer((2.0,), (1.0,)).undone(torch.tensor([[1.0]]))
        tensor([[3.]])
        """
        mean, std = self.along(x)
        return x * std + mean

    def is_close(self, other: Standardizer) -> bool:
        """Return whether another standardizer is the same up to a ten-thousandth of the deviations.

        >>> Standardizer((2.0,), (1.0,)).is_close(Standardizer((2.1,), (1.0,)))
        False
        """
        return len(self.mean) == len(other.mean) and all(
            abs(mean - m) <= CLOSE * std and abs(std - s) <= CLOSE * std
            for mean, std, m, s in zip(self.mean, self.std, other.mean, other.std, strict=True)
        )

    def along(self, x: Tensor) -> Iterator[Tensor]:
        return (
            _along_channels(torch.tensor(values, dtype=x.dtype, device=x.device), x) for values in (self.mean, self.std)
        )


def _some(x: Tensor | StoredRows) -> Iterator[Tensor]:
    """Yield all rows, some at a time."""
    rows = max(1, min(_ROWS, _NUMBERS // max(1, x.shape[1:].numel())))
    return (x[start : start + rows] for start in range(0, len(x), rows))


def _sum_of_powers(x: Tensor | StoredRows, centre: Tensor, power: int) -> Tensor:
    """Sum (x − centre)^power of each channel, in double precision and with little memory: (x.shape[1],)."""
    dims = [0, *range(2, len(x.shape))]
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for rows in _some(x):
        total += (rows.cpu().double() - _along_channels(centre, rows)).pow(power).sum(dims)
    return total


def _constant(x: Tensor | StoredRows) -> Tensor:
    """Return which channels have one value only, (x.shape[1],)."""
    first = _along_channels(x[0:1].cpu().reshape(x.shape[1], -1)[:, 0], x[0:1])
    constant = torch.ones(x.shape[1], dtype=torch.bool)
    for rows in _some(x):  # into one result: small ones, kept between the large pieces, would keep their memory in use
        constant &= (rows.cpu() == first).reshape(len(rows), x.shape[1], -1).all(dim=2).all(dim=0)
    return constant


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
