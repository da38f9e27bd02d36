"""The thresholds at which features enter models of halves of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.feature_selection._base import _get_feature_importances

from torchlasso.estimators.convex import LinearProblem
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.smooth import TrainingLoss
from torchlasso.estimators.sparse_rows import linear_rows

RATIO = 0.86  # of a λ of the common grid to the one before
ROUNDING = 1e-13  # of a sum, relative to that of its absolute terms
DEEPEST = 1e-3  # the smallest λ of a path, relative to its largest


@dataclass(frozen=True)
class LinearEntries:
    """The exact linear models of halves, along a grid of λ that all halves have in common.

    Attributes:
        groups: the groups of the features.
        l1_ratio, intercept, tolerance: of the models, see :class:`~torchlasso.estimators.convex.LinearProblem`.
        lams: the λ of the path, falling; None for powers of one number, from the λ at which the first group enters.
        most: the number of groups at which a path ends, if the λ are not given.
        positive: whether all weights are at least 0.
    """

    groups: FeatureGroups
    l1_ratio: float
    intercept: bool
    tolerance: float
    lams: Numbers | None
    most: int
    positive: bool = False

    def problem(self, x: Numbers, targets: TrainingLoss) -> LinearProblem:
        """Return the convex problem of some rows."""
        targets = targets.to(torch.float64)
        groups = self.groups.for_linear(self.l1_ratio, positive=self.positive)
        return LinearProblem(linear_rows(x), targets, groups, targets.outputs, self.intercept, self.tolerance)

    def __call__(self, x: Numbers, targets: TrainingLoss) -> tuple[Numbers, float]:
        """Return the largest λ at which each group lives, (groups,), and the λ below which this is not known."""
        problem = self.problem(x, targets)
        entries, found, lam = np.zeros(len(self.groups.members)), None, 0.0
        if _is_rounding(problem):  # no λ could be reached to any precision
            return entries, lam
        for lam in self._lams(problem.lambda_max):
            found = problem.minimum(lam, found)
            live = problem.groups.norms(found.coef).numpy() > 0
            entries = np.where(live & (entries == 0), lam, entries)
            if self.lams is None and (live & ~self.groups.is_kept).sum() >= self.most:
                break
        return entries, lam

    def _lams(self, largest: float) -> Numbers:
        if self.lams is not None:
            return self.lams
        if not largest:
            return np.empty(0)
        first = math.ceil(math.log(largest) / math.log(RATIO))
        count = math.ceil(math.log(DEEPEST) / math.log(RATIO))
        return RATIO ** np.arange(first, first + count, dtype=float)


def _is_rounding(problem: LinearProblem) -> bool:
    """Return whether the gradients without features are no more than rounding, as with constant columns."""
    terms = (problem.x.abs().mT @ problem.slope_at_zero.abs()).amax()
    return bool(problem.lambda_max * problem.groups.l1.max() <= ROUNDING * terms)


def fitted_importances(estimator: Any, x: Numbers, y: Numbers, seed: int, weights: Numbers | None = None) -> Numbers:
    """Fit a copy of an estimator, and return its importances or the sizes of its coefficients, (features,)."""
    model = clone(estimator)
    names = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
    options = {} if weights is None else {"sample_weight": weights}
    model.set_params(**dict.fromkeys(names, seed)).fit(x, y, **options)
    found = _get_feature_importances(model, "auto", transform_func="norm", norm_order=1)
    return np.asarray(found, dtype=float)
