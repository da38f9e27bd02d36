"""The distinct values of labels, found with little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from torchlasso.data.frame import Array

SPAN = 1 << 20  # between the least and the largest of whole numbers that are counted
AT_ONCE = 1 << 18  # labels that are looked up at a time


def distinct(y: Array) -> tuple[Array, Array]:
    """Return the sorted distinct labels, and the place of each label among them, (n,), in the least type of integers.

    Whole numbers that are close together are counted, which takes less time and memory than to sort them.

    >>> [each.tolist() for each in distinct(np.array([7, 5, 7]))]
    [[5, 7], [1, 0, 1]]
    """
    if not _are_close(y):
        values, places = np.unique(y, return_inverse=True)
        return values, places.reshape(-1).astype(_least_type(0, len(values)))
    values = distinct_values(y)
    low = int(values[0])
    table = np.zeros(int(values[-1]) - low + 1, dtype=_least_type(0, len(values)))
    table[values - low] = np.arange(len(values))
    found = np.empty(len(y), dtype=table.dtype)
    for some in _slices(y):
        found[some] = table[y[some].astype(np.int64) - low]
    return values, found


def distinct_values(y: Array) -> Array:
    """Return the sorted distinct labels.

    >>> distinct_values(np.array([7, 5, 7])).tolist()
    [5, 7]
    """
    if not _are_close(y):
        return np.asarray(np.unique(y))
    low = int(y.min())
    is_there = np.zeros(int(y.max()) - low + 1, dtype=np.bool_)
    for some in _slices(y):
        is_there[y[some].astype(np.int64) - low] = True
    return np.flatnonzero(is_there) + low


def narrowed(y: Array) -> Array:
    """Return whole numbers in the least type of integers that holds them, and other labels as they are.

    >>> narrowed(np.array([0, 300])).dtype
    dtype('int16')
    """
    if y.dtype.kind != "i" or not len(y):
        return y
    return y.astype(_least_type(int(y.min()), int(y.max())))


def _are_close(y: Array) -> bool:
    return y.dtype.kind == "i" and len(y) > 0 and int(y.max()) - int(y.min()) <= SPAN


def _least_type(least: int, largest: int) -> Any:
    """Return the least type of integers that holds all from ``least`` to ``largest``."""
    types = (np.int8, np.int16, np.int32, np.int64)
    return next(each for each in types if np.iinfo(each).min <= least and largest <= np.iinfo(each).max)


def _slices(y: Array) -> Iterator[slice]:
    return (slice(start, start + AT_ONCE) for start in range(0, len(y), AT_ONCE))
