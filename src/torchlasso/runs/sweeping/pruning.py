"""The pruning of bad trials: those that are worse than half of the others of their model that are as sparse."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

SHARES = (0.25, 0.5)  # of the epochs, after which trials are compared
FEWEST = 4  # others to compare with


@dataclass(frozen=True)
class Standing:
    """The state of a trial when trials are compared.

    Attributes:
        badness: its error on the validation rows, or its loss.
        zeros: the share of zeros that it is to have, or has if there is no target.
        model: its model with its options; only trials of the same model are compared by their shares of zeros.
    """

    badness: float
    zeros: float
    model: str = ""


def pruned(standings: Mapping[int, Standing]) -> list[int]:
    """Return the trials that are to be given up: the median rule, among trials that are as sparse or sparser.

    A sparse network is never compared with denser ones, which are more accurate. So the trials that are left reach as
    as all, from dense to sparse. Nor are different models compared: the same share of zeros leaves more weights in the
    larger one.

    Args:
        standings: a trial ↦ its state after the same share of its epochs as the others.

    Source: the median rule is from Golovin et al. 2017 (Google Vizier).

    Examples:
        >>> same = {i: Standing(0.1 * i, zeros=0.9) for i in range(6)}
        >>> pruned(same)
        [3, 4, 5]
        >>> pruned({**same, 9: Standing(0.9, zeros=0.95)})
        [4, 5]
    """
    found = []
    for trial, own in standings.items():
        same = [each for key, each in standings.items() if key != trial and each.model == own.model]
        others = [each.badness for each in same if each.zeros >= own.zeros]
        if len(others) >= FEWEST and own.badness > statistics.median(others):
            found.append(trial)
    return found
