"""The path of an estimator: which features live at each λ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PathPoint:
    """The model for one λ.

    Attributes:
        lam: λ.
        live: a mask of the features that it reads, (features,).
        loss: its mean loss on the training rows, without the penalty.
    """

    lam: float
    live: Numbers
    loss: float

    @property
    def features(self) -> int:
        """The number of features that it reads."""
        return int(self.live.sum())


def importances(points: Sequence[PathPoint]) -> Numbers:
    """Return the largest λ at which each feature lives, 0 for those that never do.

    The features in the order of their entry, if λ falls from a value at which there are none.

    Examples:
        >>> both, second = np.array([True, True, False]), np.array([False, True, False])
        >>> importances([PathPoint(0.1, both, loss=0.5), PathPoint(0.2, second, loss=0.6)])
        array([0.1, 0.2, 0. ])
    """
    found: Numbers = np.max([np.where(point.live, point.lam, 0.0) for point in points], axis=0)
    return found
