"""The division of the rows of a table into a part for training and a part that is held out."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from torchlasso.estimators.points import Numbers
from torchlasso.estimators.subsamples import most_frequent


def held_out_part(
    kinds: Numbers | None, groups: Numbers | None, rows: int, share: float, seed: int
) -> tuple[Numbers, Numbers]:
    """Return the numbers of the training rows, and of the held-out rows.

    Args:
        kinds: the kind of each row, (n,), such as its class: both parts have about the same share of each kind, if
            there are enough rows, or groups, for that. A group is of its most frequent kind.
        groups: the group of each row, (n,): the rows of a group are in one part.
        rows: n.
        share: the share of the rows, or of the groups, that is held out.
        seed: of the division.

    Raises:
        ValueError: there are fewer than two rows, or groups.

    Examples:
        >>> training, held_out = held_out_part(None, np.arange(8) // 2, 8, 0.25, seed=0)
        >>> len(training), held_out
        (6, array([4, 5]))
    """
    units = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    if count < 2:
        raise ValueError(
            f"a part that is held out needs at least 2 {'rows' if groups is None else 'groups'}; got {count}"
        )
    options: dict[str, Any] = {"n_splits": 1, "test_size": share, "random_state": seed}
    splitter, strata = ShuffleSplit(**options), None
    if kinds is not None:
        strata = most_frequent(units, np.unique(kinds, return_inverse=True)[1])
        sizes = np.unique(strata, return_counts=True)[1]
        if sizes.min() > 1 and min(ceil(count * share), count - ceil(count * share)) >= len(sizes):
            splitter = StratifiedShuffleSplit(**options)
    training, held_out = next(splitter.split(np.arange(count), strata))
    if groups is None:
        return training, held_out
    is_held_out = np.isin(units, held_out)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
