"""Columns of numbers that lie closer together than float32 tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torchlasso.data.frame import Array
from torchlasso.data.messages import listed

STEPS = 100  # that float32 has between the smallest and the largest number of a column, at least
SPACING = 2.0**-23  # between a number of float32 and the next one, relative to it, at most


def is_coarse(values: Array) -> bool:
    """Return whether float32 has only a few steps between the smallest and the largest of some numbers.

    Args:
        values: (n,) or (n, 1), whole or decimal ones; a gap is NaN.

    >>> is_coarse(np.array([1.7e9, 1.7e9 + 60])), is_coarse(np.array([1.7e9, 1.8e9])), is_coarse(np.array([1.7e9] * 2))
    (True, False, False)
    """
    if not values.size or values.dtype == np.float32:
        return False
    low, high = np.fmin.reduce(values, axis=None).item(), np.fmax.reduce(values, axis=None).item()  # exact whole ones
    return bool(0 < high - low < STEPS * SPACING * max(abs(low), abs(high)))


def whole_numbers(pa: Any, column: Any) -> Array | None:
    """Return the whole numbers of a column of Arrow, of which float64 would lose some; None of any other column."""
    if not pa.types.is_integer(column.type) or column.type.bit_width < 64:
        return None
    return np.asarray(column.drop_null().to_numpy())


def notes_of_coarse(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note that names columns which lost much of what they say."""
    if not names:
        return ()
    return (
        f"{listed(names)}: the numbers lie so close together, for their size, that rounding to 32 bits makes some of "
        "them equal; write them as differences from the smallest one.",
    )
