"""The grid of a path, and the λ of its next point."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from torchlasso.path import Grid, Point
from torchlasso.path.search import next_lam


@pytest.mark.parametrize(("points", "densest", "sparsest"), [(2, 0.5, 0.9), (3, 0.5, 0.995), (20, 0.1, 0.999)])
def test_the_grid_is_even_in_the_logarithm_of_density(points: int, densest: float, sparsest: float) -> None:
    targets = Grid(points, sparsest, densest).targets
    assert len(targets) == points - 1
    assert targets[-1] == pytest.approx(sparsest, abs=1e-12)
    assert points == 2 or targets[0] == pytest.approx(densest, abs=1e-12)
    steps = np.diff(np.log([1 - target for target in targets]))
    assert np.allclose(steps, math.log((1 - sparsest) / (1 - densest)) / max(1, points - 2), atol=1e-9)


@pytest.mark.parametrize("points", [2, 3, 8])
def test_the_grid_is_even_in_the_logarithm_of_lam(points: int) -> None:
    lams = Grid(points, lams=(1e-5, 3e-2)).strengths
    assert len(lams) == points - 1
    assert lams[-1] == 3e-2
    assert points == 2 or lams[0] == 1e-5
    assert np.allclose(np.diff(np.log(lams)), math.log(3e3) / max(1, points - 2), atol=1e-9)


BAD = [{"points": n} for n in (1, 0, -3)] + [{"sparsest": s} for s in (0.5, 0.2, 1.0, 2.0, math.nan)]
BAD += [{"densest": d} for d in (0.0, -0.1, 0.995, math.nan)]
BAD += [{"lams": p} for p in ((0, 1), (-1, 1), (1, 1), (2, 1), (math.nan, 1), (1, math.nan), (1, math.inf))]


@pytest.mark.parametrize("arguments", BAD, ids=str)
def test_a_grid_that_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*; got [^\n]+$"):
        Grid(**arguments)


def test_a_grid_by_density_has_no_strengths() -> None:
    with pytest.raises(ValueError, match="spaced by density"):
        _ = Grid().strengths


@pytest.mark.parametrize(
    ("before", "lam"),
    [
        ([(1e-3, 0.0)], 1e-2),  # nothing became zero
        ([(1e-3, 1.0)], 1e-4),  # everything did
        ([(1e-3, 0.5), (2e-3, 0.8)], 2e-3 * math.exp(math.log(9 / 4) / 3 / 2)),  # odds of 1 and 1/4: the power is 2
        ([(1e-3, 0.5), (4e-3, 0.8)], 4e-3 * math.exp(math.log(9 / 4) / 3)),  # it is 1
        ([(1e-3, 0.5), (1e-1, 0.8)], 1e-1 * math.exp(math.log(9 / 4) / 3 / 0.4)),  # it is taken to be at least 0.4
        ([(1e-3, 0.5), (2e-3, 0.95)], 2e-3 * math.exp(-math.log(19 / 9) / 3 / 2)),  # beyond the last already
    ],
)
def test_lam_of_the_next_point_follows_from_the_last_point(before: list[tuple[float, float]], lam: float) -> None:
    """Three points are to come of those to the share 0.9 of zeros, whose odds are 1/9."""
    done = [Point(0, 0.0, 0.0, 60, None, None, None, None, 1, 1.0)]
    done += [replace(done[0], index=k, lam=value, sparsity=zeros) for k, (value, zeros) in enumerate(before, 1)]
    assert next_lam(done, Grid(len(done) + 3, sparsest=0.9)) == pytest.approx(lam, rel=1e-9)
