"""Factors for which something that falls with them, one for each, has a wanted value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

TRIALS = 60
# The factors that are tried, at most and at least.
LARGEST, SMALLEST = 1e12, 1e-12

Left = Callable[[Sequence[float]], list[float]]


def solve(left: Left, wanted: Sequence[float], starts: Sequence[float], near: float = 0.0) -> list[float]:
    """Return factors for which what is left is near what is wanted; 0 where it is no more without any.

    Args:
        left: the factors of all units ↦ what is left in each, which falls as its factor rises.
        wanted: for each unit.
        starts: factors near the solution, above 0. One is returned where no factor leaves so little.
        near: the distance from what is wanted, relative to it, that ends the search; with 0 the result is the least
            factor that leaves no more than wanted, to a precision of 1e-7.

    Examples:
        >>> [round(factor, 3) for factor in solve(lambda factors: [1 / (1 + f) for f in factors], [0.2, 1.5], [1, 1])]
        [4.0, 0.0]
    """
    searches = [_Root(aim, start, near) for aim, start in zip(wanted, starts, strict=True)]
    for _ in range(TRIALS):
        if all(search.done for search in searches):
            break
        tried = [search.next for search in searches]
        for search, found in zip(searches, left(tried), strict=True):
            search.learn(found)
    return [search.result for search in searches]


class _Root:
    """The root of one unit: regula falsi in logarithms, with a bisection in every third trial.

    Args:
        wanted: what is to be left.
        start: a factor near the solution.
        near: see :func:`solve`.
    """

    def __init__(self, wanted: float, start: float, near: float) -> None:
        self.wanted, self.near = wanted, near
        self.first = self.next = min(max(start, SMALLEST), LARGEST)
        self.low: tuple[float, float] | None = None  # a factor that leaves too much, and what it leaves
        self.high: tuple[float, float] | None = None  # one that does not
        self.best: float | None = None
        self.done, self.trials = False, 0
        self.needed = False  # whether it is known that without any factor too much is left
        self.waiting: tuple[float, float] | None = None  # a factor, and what it leaves, until that is known

    def learn(self, found: float) -> None:
        """Learn what the last factor leaves, and choose the next."""
        if self.done:
            return
        if self.waiting is not None:
            if not found > self.wanted:  # also where nothing counts, NaN
                self.best, self.done = 0.0, True
                return
            self.needed, (self.next, found), self.waiting = True, self.waiting, None
        elif not found > self.wanted and not self.needed:
            self.waiting, self.next = (self.next, found), 0.0
            return
        self.needed = True
        self.trials += 1
        if abs(found - self.wanted) <= self.near * self.wanted and self.near:
            self.best, self.done = self.next, True
            return
        if found > self.wanted:
            self.low = self.next, found
        else:
            self.high = self.next, found
        if self.low is None or self.high is None:
            self.next *= 4.0 if self.high is None else 0.25
            self.done = not SMALLEST <= self.next <= LARGEST
            return
        self.done = self.high[0] <= self.low[0] * (1 + 1e-7)
        self.next = math.sqrt(self.low[0] * self.high[0]) if self.trials % 3 == 0 else self._between()

    def _between(self) -> float:
        """Return the factor at which a line between the two points meets what is wanted, well within them."""
        (low, more), (high, less) = self.low or (0.0, 0.0), self.high or (0.0, 0.0)
        top, aim, bottom = (math.log(max(value, 1e-12)) for value in (more, self.wanted, less))
        share = min(max((top - aim) / (top - bottom), 0.05), 0.95) if top > bottom else 0.5
        return low * math.exp(share * math.log(high / low))

    @property
    def result(self) -> float:
        """The factor that was found."""
        if self.best is not None:
            return self.best
        return self.high[0] if self.high is not None else self.first
