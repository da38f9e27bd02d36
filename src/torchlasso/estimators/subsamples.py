"""Complementary pairs of halves of the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torchlasso.estimators.points import Numbers

TRIES = 100  # draws of a pair, until each half has two classes
LEAST = 4  # rows, or groups of rows, so that each half has two


def complementary_pairs(
    units: Numbers,
    pairs: int,
    random: np.random.RandomState,
    classes: Numbers | None = None,
    events: Numbers | None = None,
) -> list[Numbers]:
    """Draw pairs of disjoint halves of the rows (Shah and Samworth 2013).

    Rows of one unit are in the same half. With classes, each class is divided as evenly as its units allow, and each
    half has at least two classes; with events, these are divided as evenly, and each half has one. Of an odd number of
    units, one is in neither half.

    Args:
        units: the number of the unit of each row, (n,), from 0 on.
        pairs: the number of pairs.
        random: the source of random numbers.
        classes: the number of the class of each row, (n,), from 0 on.
        events: whether each row had an event, (n,).

    Returns:
        The rows of the 2·pairs halves, sorted; the halves 2b and 2b + 1 are a pair.

    Raises:
        ValueError: there are fewer than four units; or in no draw both halves had two classes, or an event.

    Examples:
        >>> first, second = complementary_pairs(np.arange(6), 1, np.random.RandomState(0))
        >>> first, second
        (array([1, 2, 5]), array([0, 3, 4]))
    """
    count = int(units.max()) + 1
    if count < LEAST:
        raise ValueError(f"stability selection needs at least {LEAST} groups of rows; got {count}")
    kinds = classes if events is None else events.astype(int)
    strata = np.zeros(count, dtype=int) if kinds is None else most_frequent(units, kinds)
    found: list[Numbers] = []
    for _ in range(pairs):
        found.extend(_pair(units, strata, random, classes, events))
    return found


def _pair(
    units: Numbers,
    strata: Numbers,
    random: np.random.RandomState,
    classes: Numbers | None,
    events: Numbers | None,
) -> Sequence[Numbers]:
    for _ in range(TRIES):
        halves = [np.flatnonzero(np.isin(units, half)) for half in _halves_of(strata, random)]
        has_classes = classes is None or all(len(np.unique(classes[half])) > 1 for half in halves)
        has_events = events is None or all(events[half].any() for half in halves)
        if has_classes and has_events:
            return halves
    if events is not None:
        raise ValueError(f"each half of the rows needs an event; in {TRIES} draws one half had none")
    raise ValueError(f"each half of the rows needs two classes; in {TRIES} draws one half had only one")


def _halves_of(strata: Numbers, random: np.random.RandomState) -> Numbers:
    """Divide units in two, one of each two neighbours in an order by strata to each side: (2, ⌊count/2⌋)."""
    ranks = random.permutation(strata.max() + 1)  # the unit left out is not always of the same stratum
    order = np.lexsort([random.permutation(len(strata)), ranks[strata]])
    twos = order[: 2 * (len(order) // 2)].reshape(-1, 2)
    swapped = random.randint(2, size=len(twos)).astype(bool)
    return np.where(swapped[:, None], twos[:, ::-1], twos).T


def most_frequent(units: Numbers, classes: Numbers) -> Numbers:
    """Return the most frequent class of each unit; both are numbers from 0 on, (n,)."""
    counts = np.zeros((int(units.max()) + 1, int(classes.max()) + 1), dtype=int)
    np.add.at(counts, (units, classes), 1)
    found: Numbers = counts.argmax(axis=1)
    return found
