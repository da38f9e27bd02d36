"""Intervals by leaving out groups of rows, for rows that are alike within a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from torchlasso.runs.quality.intervals import LIMITS, Interval

BLOCKS = 30  # of groups, each left out once
FEWEST = 3
# not of the calibration error, a sum of absolute values, which rises where there are fewer rows
BOUNDS: Mapping[str, Interval] = {
    **dict.fromkeys(("error", "balanced_accuracy", "macro_f1", "auc"), (0.0, 1.0)),
    **dict.fromkeys(("log_loss", "rmse", "mae"), (0.0, math.inf)),
    "r2": (-math.inf, 1.0),
}

FiguresByKey = Mapping[str, float | None]  # by the key of the measure


def intervals_without(
    values: Callable[[NDArray[np.bool_]], FiguresByKey], groups: NDArray[np.int64], whole: FiguresByKey
) -> dict[str, Interval]:
    """Return intervals by the delete-a-group jackknife (Kott 2001, Journal of Official Statistics 17).

    The groups are dealt to at most 30 blocks. With the figure f of all rows and f_b of those without the block b of B,
    the variance is (B − 1)/B · Σ_b (f_b − f)², and the interval that of Student's t with B − 1 degrees of freedom.

    Args:
        values: a mask of rows, (n,) ↦ the figures of these rows.
        groups: the number of the group of each row, (n,).
        whole: the figures of all rows.

    Returns:
        The interval of each figure that has one: not where there are fewer than three groups, where a figure is not
        defined without a block, or where it is the same without each.
    """
    known, places = np.unique(groups, return_inverse=True)
    blocks = np.random.default_rng(0).permutation(len(known)) % BLOCKS
    of_rows, count = blocks[places.reshape(-1)], min(len(known), BLOCKS)
    if count < FEWEST:
        return {}
    without = [values(of_rows != block) for block in range(count)]
    factor, found = float(stats.t.ppf(LIMITS[1], count - 1)), dict[str, Interval]()
    for key, value in whole.items():
        parts = [part for each in without if (part := each[key]) is not None]
        if value is None or len(parts) < count or key not in BOUNDS:
            continue
        half = factor * math.sqrt((count - 1) / count * sum((part - value) ** 2 for part in parts))
        if half:
            lowest, highest = BOUNDS[key]
            found[key] = max(lowest, value - half), min(highest, value + half)
    return found
