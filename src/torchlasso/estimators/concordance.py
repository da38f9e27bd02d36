"""The concordance index of Harrell et al. (1982): the share of pairs that a model orders as their events happened."""

from __future__ import annotations

import numpy as np

from torchlasso.estimators.points import Numbers


def concordance_index(time: Numbers, event: Numbers, risk: Numbers) -> float:
    """Return the share of comparable pairs in which the row of the earlier event has the larger risk.

    Two rows are comparable if one has an event before the other's time, or at the same time while the other has none.
    Equal risks count half. It takes n·log²(n) time.

    Args:
        time: (n,) times.
        event: (n,) whether each is the time of an event.
        risk: (n,) the larger, the earlier.

    Raises:
        ValueError: no two rows can be compared.

    Examples:
        >>> concordance_index(np.array([1, 2, 3]), np.array([True, True, False]), np.array([0.5, 0.9, 0.1]))
        0.6666666666666666
    """
    ranks = np.unique(risk, return_inverse=True)[1].astype(np.int64)
    smaller, comparable = _later(time, event, ranks)
    larger, _ = _later(time, event, -ranks)
    if not comparable:
        raise ValueError("no two rows can be compared: each pair needs an event before the time of the other row")
    return (smaller + (comparable - smaller - larger) / 2) / comparable


def _later(time: Numbers, event: Numbers, ranks: Numbers) -> tuple[int, int]:
    """Count the comparable pairs in which the later row has the smaller rank, and all comparable pairs.

    Events of one time stand in the order of their ranks, so that none of them counts for another one.
    """
    order = np.lexsort((np.where(event, ranks, 0), ~event, time))
    time, event, ranks = time[order], event[order], ranks[order]
    counts = _smaller_after(ranks)
    after = np.arange(len(time), 0, -1) - 1
    tied = _tied_after(time, event)
    return int(counts[event].sum()), int((after - tied)[event].sum())


def _tied_after(time: Numbers, event: Numbers) -> Numbers:
    """Count, for each event, the events of the same time that stand after it."""
    _, tie = np.unique(time, return_inverse=True)
    running = np.cumsum(event)
    ends = np.zeros(tie.max() + 1, dtype=np.int64)
    np.maximum.at(ends, tie, running)
    found: Numbers = ends[tie] - running
    return found


def _smaller_after(ranks: Numbers) -> Numbers:
    """Count, for each place, the smaller ranks at later places: those of the right half of each block of 2, 4, 8, …"""
    n = len(ranks)
    found, place = np.zeros(n, dtype=np.int64), np.arange(n)
    span = int(ranks.max() - ranks.min()) + 1
    values, width = ranks - ranks.min(), 1
    while width < n:
        block = place // (2 * width)
        is_right = (place // width) % 2 == 1
        keys = block * span + values
        right = np.sort(keys[is_right])
        left = ~is_right
        found[left] += np.searchsorted(right, keys[left]) - np.searchsorted(right, block[left] * span)
        width *= 2
    return found
