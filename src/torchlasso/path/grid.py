"""The grid of a path."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST = 10_000  # the most points


@dataclass(frozen=True)
class Grid:
    """The shares of zeros, or the values of λ, for the sparse points of a path.

    Args:
        points: the number of points, including the dense one; at least 2.
        sparsest: the share of zeros of the last point, if the points are spaced by density.
        densest: the share of zeros of the first sparse point.
        lams: λ of the first and the last sparse point; with it, the points are spaced by λ.

    The points are spaced evenly on a logarithmic scale of density, the share of weights left, or of λ. Densities
    are met only approximately, since the λ of each point is extrapolated from the points before.

    Examples:
        >>> [round(zeros, 4) for zeros in Grid(4, sparsest=0.995).targets]
        [0.5, 0.95, 0.995]
        >>> Grid(4, lams=(1e-4, 1e-2)).strengths
        [0.0001, 0.001, 0.01]
    """

    points: int = 20
    sparsest: float = 0.995
    densest: float = 0.5
    lams: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"a path has at least 2 points, the dense one and a sparse one; got {self.points}")
        if self.points > MOST:
            raise ValueError(f"a path has at most {MOST:,} points; got {self.points:,}")
        if not 0 < self.densest < self.sparsest < 1:
            raise ValueError(
                f"the sparsest point must have more zeros than the first sparse one, {self.densest:g}, and fewer than "
                f"all; got {self.sparsest!r}"
            )
        if self.lams is not None and not 0 < self.lams[0] < self.lams[1] < math.inf:
            raise ValueError(
                f"the two λ of a path must be above 0 and increase; got {self.lams[0]:g} and {self.lams[1]:g}"
            )

    @property
    def targets(self) -> list[float]:
        """The approximate share of zeros of each sparse point."""
        return [1 - left for left in _evenly(1 - self.densest, 1 - self.sparsest, self.points - 1)]

    @property
    def strengths(self) -> list[float]:
        """The λ of each sparse point."""
        if self.lams is None:
            raise ValueError("the grid is spaced by density: training determines the λ of its points")
        return _evenly(*self.lams, self.points - 1)


def _evenly(first: float, last: float, n: int) -> list[float]:
    """Return ``n`` numbers evenly spaced on a logarithmic scale, or just the last one for n = 1."""
    if n == 1:
        return [last]
    return [float(f"{first * (last / first) ** (i / (n - 1)):.12g}") for i in range(n)]
