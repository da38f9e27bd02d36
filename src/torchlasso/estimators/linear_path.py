"""The training of estimators without hidden layers: the exact minimum for each λ."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from torchlasso.estimators.convex import LinearProblem, Solution
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.points import PathPoint
from torchlasso.estimators.smooth import TrainingLoss

HALVINGS = 60  # of the interval of λ, on a logarithmic scale, in the search for a number of features


@dataclass
class LinearPath:
    """Linear models of one table for several λ.

    Args:
        x: the features, (n, p).
        targets: the targets of its rows.
        groups: the groups of the features.
        l1_ratio: the share of L1 in the elastic net.
        intercept: whether there is a constant term.
        tolerance: see :class:`~torchlasso.estimators.convex.LinearProblem`.
    """

    x: Tensor
    targets: TrainingLoss
    groups: FeatureGroups
    l1_ratio: float
    intercept: bool
    tolerance: float

    def __post_init__(self) -> None:
        groups = self.groups.for_linear(self.l1_ratio)
        self.problem = LinearProblem(self.x, self.targets, groups, self.targets.outputs, self.intercept, self.tolerance)

    @property
    def lambda_max(self) -> float:
        """The least λ at which only the features live that are kept."""
        return self.problem.lambda_max

    def at(self, lam: float, start: Solution | None = None) -> Solution:
        """Return the solution for one λ; warn if it is not exact."""
        found = self.problem.minimum(lam, start)
        if not found.is_exact:
            warnings.warn(
                f"the linear model for λ = {lam:.4g} is not exact: its distance from stationarity is "
                f"{found.distance:.1e}. A larger lam makes it easier, as does scaling the features.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self._centred(found) if self.targets.is_shift_invariant else found

    def _centred(self, found: Solution) -> Solution:
        """Remove what all outputs share and the loss does not see, from numbers without a penalty."""
        free = torch.from_numpy(self.groups.is_kept[self.groups.numbers])[:, None]
        coef = torch.where(free, found.coef - found.coef.mean(dim=1, keepdim=True), found.coef)
        return replace(found, coef=coef, intercept=found.intercept - found.intercept.mean())

    def with_features(self, count: int) -> tuple[float, Solution]:
        """Return the largest λ found at which so many features live, and its solution.

        Raises:
            ValueError: no λ leaves so many features.
        """
        high, low, start = self.lambda_max, self.lambda_max, None
        for _ in range(HALVINGS):
            low, before = low / 2, low
            start = self.at(low, start)
            number = self._count(start)
            if number == count:
                return low, start
            if number > count:
                high = before
                break
        for _ in range(HALVINGS):
            lam = (low * high) ** 0.5
            found = self.at(lam, start)
            number = self._count(found)
            if number == count:
                return lam, found
            low, high, start = (lam, high, found) if number > count else (low, lam, start)
        raise ValueError(
            f"no λ leaves exactly {count} features: between λ = {low:.6g} and {high:.6g} several leave at once"
        )

    def _count(self, found: Solution) -> int:
        return int((found.coef != 0).any(dim=1).sum())

    def point(self, lam: float, found: Solution) -> PathPoint:
        """Return the point of a solution."""
        loss = float(self.targets.value(self.x @ found.coef + found.intercept))
        return PathPoint(lam, (found.coef != 0).any(dim=1).cpu().numpy(), loss)

    def rising(self, lam: float, found: Solution, points: int) -> list[PathPoint]:
        """Return points for rising values of λ, from a solution to the λ at which nothing lives that is not kept."""
        path = [self.point(lam, found)]
        if lam < self.lambda_max:
            for each in np.geomspace(max(lam, 1e-4 * self.lambda_max), self.lambda_max, points)[1:]:
                found = self.at(float(each), found)
                path.append(self.point(float(each), found))
        return path


def linear_model(found: Solution) -> nn.Linear:
    """Return a solution as a layer, of single precision."""
    layer = nn.Linear(*found.coef.shape)
    with torch.no_grad():
        layer.weight.copy_(found.coef.mT)
        layer.bias.copy_(found.intercept)
    return layer
