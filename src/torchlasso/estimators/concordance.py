"""The concordance index of Harrell et al. (1982): the share of pairs that a model orders as their events happened."""

from __future__ import annotations

import numpy as np

from torchlasso.estimators.points import Numbers


def concordance_index(
    time: Numbers, event: Numbers, risk: Numbers, weights: Numbers | None = None, otherwise: float | None = None
) -> float:
    """Return the share of comparable pairs in which the row of the earlier event has the larger risk.

    Two rows are comparable if one has an event before the other's time, or at the same time while the other has none.
    Equal risks count half. It takes n·log²(n) time.

    Args:
        time: (n,) times.
        event: (n,) whether each is the time of an event.
        risk: (n,) the larger, the earlier.
        weights: (n,) of the rows; the weight of a pair is the product of those of its rows. None for equal ones.
        otherwise: the index if no two rows can be compared; None to refuse them.

    Raises:
        ValueError: no two rows can be compared.

    Examples:
        >>> concordance_index(np.array([1, 2, 3]), np.array([True, True, False]), np.array([0.5, 0.9, 0.1]))
        0.6666666666666666
    """
    ranks = np.unique(risk, return_inverse=True)[1].astype(np.int64)
    own = np.ones(len(time)) if weights is None else weights
    smaller, comparable = _later(time, event, ranks, own)
    larger, _ = _later(time, event, -ranks, own)
    if not comparable and otherwise is not None:
        return otherwise
    if not comparable:
        raise ValueError("no two rows can be compared: each pair needs an event before the time of the other row")
    return (smaller + (comparable - smaller - larger) / 2) / comparable


def _later(time: Numbers, event: Numbers, ranks: Numbers, weights: Numbers) -> tuple[float, float]:
    """Weigh the comparable pairs in which the later row has the smaller rank, and all comparable pairs.

    Events of one time stand in the order of their ranks, so that none of them counts for another one.
    """
    order = np.lexsort((np.where(event, ranks, 0), ~event, time))
    time, event, ranks, weights = time[order], event[order], ranks[order], weights[order]
    smaller = _smaller_after(ranks, weights)
    after = weights.sum() - weights.cumsum()
    tied = _tied_after(time, event, weights)
    return float((weights * smaller)[event].sum()), float((weights * (after - tied))[event].sum())


def _tied_after(time: Numbers, event: Numbers, weights: Numbers) -> Numbers:
    """Return, for each event, the weight of the events of the same time that stand after it."""
    _, tie = np.unique(time, return_inverse=True)
    running = np.cumsum(weights * event)
    ends = np.zeros(tie.max() + 1)
    np.maximum.at(ends, tie, running)
    found: Numbers = ends[tie] - running
    return found


def _smaller_after(ranks: Numbers, weights: Numbers) -> Numbers:
    """Return, for each place, the weight of smaller ranks at later places: in the right half of blocks of 2, 4, 8, …"""
    n = len(ranks)
    found, place = np.zeros(n), np.arange(n)
    span = int(ranks.max() - ranks.min()) + 1
    values, width = ranks - ranks.min(), 1
    while width < n:
        block = place // (2 * width)
        is_right = (place // width) % 2 == 1
        keys = block * span + values
        order = np.argsort(keys[is_right], kind="stable")
        right, upto = keys[is_right][order], np.append(0.0, weights[is_right][order].cumsum())
        left = ~is_right
        found[left] += upto[np.searchsorted(right, keys[left])] - upto[np.searchsorted(right, block[left] * span)]
        width *= 2
    return found
