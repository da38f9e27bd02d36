"""Inputs scaled to mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CLOSE = 1e-4  # relative to the deviation; sums on another machine differ by far less
_ROWS = 4096  # rows at a time in double precision


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
    def fit(cls, x: Tensor) -> Standardizer:
        """Compute the mean and standard deviation of ``x``, (n, channels, ...) or (n, features).

        A channel or feature that is constant gets the standard deviation 1.

        Raises:
            ValueError: ``x`` has no rows or fewer than two dimensions.
        """
        if x.dim() < 2 or len(x) == 0:
            raise ValueError(f"x must have the shape (n, channels or features, ...), got {tuple(x.shape)}")
        dims = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1]
        mean = _sum_of_powers(x, torch.zeros(x.shape[1]), dims, 1) / count
        std = (_sum_of_powers(x, mean, dims, 2) / count).sqrt()
        std[(x.amax(dims) == x.amin(dims)).cpu() | (std == 0)] = 1.0
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


def _sum_of_powers(x: Tensor, centre: Tensor, dims: list[int], power: int) -> Tensor:
    """Sum (x − centre)^power over ``dims``, in double precision and with little memory: (x.shape[1],)."""
    centre = _along_channels(centre, x)
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for rows in torch.split(x, _ROWS):
        total += (rows.cpu().double() - centre).pow(power).sum(dims)
    return total


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
