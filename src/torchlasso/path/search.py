"""The search for λ of a point, in a path that is spaced by density.

λ of a point is extrapolated from the points before. If its training ends far from the wanted zeros, the path steps back
to the weights before, and trains with a λ between two that have been tried, or beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torchlasso._core.readable import percent
from torchlasso.control.steering import ELASTICITY
from torchlasso.path.grid import Grid
from torchlasso.path.points import Point, log_odds

LOWEST_POWER, HIGHEST_POWER = 0.4, 2.0  # bounds for p, if the odds of a nonzero weight are proportional to λ^-p
LARGEST_STEP = 10.0  # the largest factor on λ from one training to the next
SMALLEST_STEP = 1.5  # the smallest one, while λ has no bound on that side
TRIES = 8  # the most trainings of a point; a path makes at most so many more than two for each point
FINEST, COARSEST = 0.25, 0.6  # bounds for the distance from the wanted log odds that is near enough
INNER = 0.15  # a λ between two others keeps this share of their distance, on a logarithmic scale, from both
RESOLUTION = 1.01  # two λ with a smaller ratio are not told apart
EDGE = 1.2  # the ratio of a λ that ruins the network to the one that is kept is not made smaller than this
PROGRESS = 0.15  # a point leads on from the last one if it goes this share of the way
FEW = 0.05  # the share of zeros that leads on from a dense network


@dataclass(frozen=True)
class Try:
    """A training for a point.

    Attributes:
        point: the point that it would make.
        far: its log odds of a nonzero weight minus the wanted ones; above 0 if it has too few zeros.
        is_ruined: whether the path would end with it.
    """

    point: Point
    far: float
    is_ruined: bool


@dataclass
class LamSearch:
    """A search for the λ with which a point ends near the wanted zeros.

    Args:
        wanted: the log odds of a nonzero weight.
        begin: the log odds below which a point leads on.
        near: the distance from them that is near enough.
        most: the most trainings, at least 1.

    Attributes:
        tries: the trainings so far.
    """

    wanted: float
    begin: float
    near: float
    most: int
    tries: list[Try] = field(default_factory=list)

    def distance(self, point: Point) -> float:
        """Return the log odds of a point minus the wanted ones."""
        return log_odds(point.sparsity) - self.wanted

    def add(self, point: Point, *, is_ruined: bool) -> None:
        """Add a training."""
        self.tries.append(Try(point, self.distance(point), is_ruined))

    @property
    def is_over(self) -> bool:
        """Return whether the last training is a good point, or another one would not help."""
        last, low, high = self.tries[-1], self.low, self.high
        if (abs(last.far) <= self.near and not last.is_ruined) or len(self.tries) >= self.most:
            return True
        if high is not None and high.is_ruined and high.far >= self.begin - self.wanted:
            return True  # it is ruined without more zeros: a smaller λ has fewer
        if low is None or high is None:
            return False
        enough = EDGE if high.is_ruined and low.far < self.begin - self.wanted else RESOLUTION
        return high.point.lam < enough * low.point.lam

    @property
    def best(self) -> Try:
        """The nearest training of those that lead on; a network is ruined only where its zeros are the wanted ones."""
        sound = [t for t in self.tries if not t.is_ruined]
        leading = [t for t in sound if t.far < self.begin - self.wanted]
        wanted = [t for t in self.tries if abs(t.far) <= self.near]
        return min(leading or wanted or sound or self.tries, key=lambda t: (abs(t.far), t.point.lam))

    @property
    def low(self) -> Try | None:
        """The training with the largest λ that is too small."""
        high = self.high
        below = (t for t in self.tries if not _is_beyond(t) and (high is None or t.point.lam < high.point.lam))
        return max(below, key=lambda t: t.point.lam, default=None)

    @property
    def high(self) -> Try | None:
        """The training with the smallest λ that is too large."""
        return min(filter(_is_beyond, self.tries), key=lambda t: t.point.lam, default=None)

    @property
    def lam(self) -> float | None:
        """λ of the next training; None before the first one."""
        low, high = self.low, self.high
        if high is None:
            if low is None:
                return None
            return low.point.lam * min(max(math.exp(low.far / ELASTICITY), SMALLEST_STEP), LARGEST_STEP)
        if low is None:
            factor = LARGEST_STEP if high.is_ruined else math.exp(-high.far / ELASTICITY)
            return high.point.lam / min(max(factor, SMALLEST_STEP), LARGEST_STEP)
        # by turns: a line between both, which is quick where the zeros are smooth, and the middle, where they jump
        share = 0.5 if high.is_ruined or len(self.tries) % 2 else low.far / (low.far - high.far)
        share = min(max(share, INNER), 1 - INNER)
        return low.point.lam * math.exp(share * math.log(high.point.lam / low.point.lam))

    @property
    def miss(self) -> str | None:
        """A sentence on zeros that are far from the wanted ones; None if they are near."""
        best, low, high = self.best, self.low, self.high
        wanted = percent(1 / (1 + math.exp(self.wanted)))
        gives = f"λ = {best.point.lam:.4g} gives {percent(best.point.sparsity)} zeros instead of {wanted}"
        if abs(best.far) <= self.near:
            return None
        if high is not None and high.is_ruined and best is not high:
            return f"{gives}, and λ = {high.point.lam:.4g} ruins the network"
        if low is not None and high is not None:
            lams = f"between λ = {low.point.lam:.4g} and λ = {high.point.lam:.4g}"
            return f"{lams} the zeros jump from {percent(low.point.sparsity)} to {percent(high.point.sparsity)}"
        return gives if abs(best.far) > 2 * self.near else None


def _is_beyond(t: Try) -> bool:
    return t.far < 0 or t.is_ruined


def search(before: Sequence[Point], grid: Grid) -> LamSearch:
    """Begin the search for λ of the next point.

    The remaining points divide the way from the last point to the sparsest one evenly.
    """
    sparse = _partly_sparse(before)
    if sparse:
        last = log_odds(sparse[-1].sparsity)
        way = (last - log_odds(grid.sparsest)) / (grid.points - len(before))  # below 0 if the last point overshot
        wanted, begin = last - way, last - PROGRESS * way
    else:
        way = (log_odds(grid.densest) - log_odds(grid.sparsest)) / max(1, grid.points - 2)
        wanted, begin = log_odds(grid.targets[len(before) - 1]), log_odds(FEW)
    again = sum(point.tries - 1 for point in before)
    near = min(max(abs(way) / 2, FINEST), COARSEST) if sparse else COARSEST
    return LamSearch(wanted, begin, near, most=min(TRIES, 1 + max(0, grid.points + TRIES - again)))


def next_lam(before: Sequence[Point], grid: Grid) -> float:
    """Extrapolate λ of the next point: the odds of a nonzero weight are about a power of 1/λ.

    The power is fitted to the last two points, within bounds, since a point may not have converged.
    """
    sparse = _partly_sparse(before)
    if not sparse:  # λ was so small that nothing became zero, or so large that everything did
        return before[-1].lam * (LARGEST_STEP if before[-1].sparsity == 0 else 1 / LARGEST_STEP)
    odds = [log_odds(point.sparsity) for point in sparse]
    power = ELASTICITY
    if len(sparse) > 1 and sparse[-1].lam > sparse[-2].lam:
        power = (odds[-2] - odds[-1]) / math.log(sparse[-1].lam / sparse[-2].lam)
    power = min(max(power, LOWEST_POWER), HIGHEST_POWER)
    way = odds[-1] - search(before, grid).wanted
    return sparse[-1].lam * min(math.exp(way / power), LARGEST_STEP)


def _partly_sparse(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.lam and 0 < point.sparsity < 1]
