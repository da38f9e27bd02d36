"""Remarks on a path: jumps of its zeros, points that it lacks, and points of no use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torchlasso._core.readable import percent
from torchlasso.path.grid import Grid
from torchlasso.path.points import Point, log_odds

JUMP = 3.0  # a larger step of the log odds of a nonzero weight, as from 50 % to 96 % zeros, is a jump
FEWEST = 0.05  # fewer zeros count as so many in a jump
SHORT = 0.6  # a path that is so far from its sparsest point, in log odds, falls short of it


def remarks(points: Sequence[Point], grid: Grid, collapse: float) -> tuple[str, ...]:
    """Return a sentence for everything in which a path is not what was asked for.

    Args:
        points: of a path that has ended.
        grid: the grid that was asked for.
        collapse: the share of the way to a constant prediction at which the path ends.

    Examples:
        >>> dense = Point(0, 0.0, 0.0, 100, None, None, None, None, epochs=1, seconds=1.0)
        >>> sparse = Point(1, 0.1, 0.3, 70, None, None, None, None, epochs=1, seconds=1.0)
        >>> remarks([dense, sparse], Grid(2, sparsest=0.9), 0.25)
        ('The path ends at 30.0 % zeros instead of 90.0 %.',)
    """
    return (*_misses(points), *(_of_given(points) if grid.lams else ()), *_of_end(points, grid, collapse))


def _misses(points: Sequence[Point]) -> Iterator[str]:
    for point in points:
        if point.miss is not None:
            yield f"Point {point.index + 1}: {point.miss}, after {point.tries} trainings."


def _of_given(points: Sequence[Point]) -> Iterator[str]:
    """Yield the remarks on values of λ that were given: they are kept."""
    sparse = points[1:]
    for one, other in pairwise(sparse):
        if log_odds(max(one.sparsity, FEWEST)) - log_odds(max(other.sparsity, FEWEST)) > JUMP:
            zeros = f"{percent(one.sparsity)} to {percent(other.sparsity)}"
            yield (
                f"Between λ = {one.lam:.4g} and λ = {other.lam:.4g}, which were given, the zeros jump from {zeros}: "
                "give more points, values of λ nearer to these, or space the points by density."
            )
    for share, kind in ((0.0, "no zeros"), (1.0, "no weights left")):
        found = [point for point in sparse if point.sparsity == share]
        if len(found) > 1:
            yield f"{len(found)} points, from λ = {found[0].lam:.4g} to λ = {found[-1].lam:.4g}, have {kind}."


def _of_end(points: Sequence[Point], grid: Grid, collapse: float) -> Iterator[str]:
    last = points[-1]
    if len(points) < grid.points:
        yield (
            f"The path ends at point {len(points)} of {grid.points}, with {percent(last.sparsity)} zeros: the error on "
            f"the validation rows is more than {collapse:.0%} of the way from the best point to guessing."
        )
    elif not grid.lams and last.miss is None and log_odds(last.sparsity) - log_odds(grid.sparsest) > SHORT:
        yield f"The path ends at {percent(last.sparsity)} zeros instead of {percent(grid.sparsest)}."
