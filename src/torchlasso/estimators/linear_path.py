"""The training of estimators without hidden layers: the exact minimum for each λ."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from torchlasso.estimators.convex import LinearProblem, Solution
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.models import Fitted, LinearModel
from torchlasso.estimators.points import Numbers, PathPoint
from torchlasso.estimators.smooth import TrainingLoss
from torchlasso.estimators.sparse_rows import LinearRows

HALVINGS = 60  # of the interval of λ, on a logarithmic scale, in the search for a number of features
CLOSE = 1e-6  # relative distance of two λ, below which groups enter at the same one, or nearly so
# The least λ of a grid relative to the largest one. With more features than rows, a smaller one would only fit the rows
# more closely, at great cost: glmnet has the same two kinds.
SMALLEST, SMALLEST_WIDE = 1e-3, 1e-2
COPY = 1e-9  # one minus the correlation of columns from which on they are copies of one another
PERMUTATIONS, AT_ONCE = 1000, 100  # of the targets, in the search for the λ of pure noise


@dataclass
class LinearPath:
    """Linear models of one table for several λ.

    Args:
        x: the features, (n, p), dense or sparse.
        targets: the targets of its rows.
        groups: the groups of the features.
        l1_ratio: the share of L1 in the elastic net.
        intercept: whether there is a constant term.
        tolerance: see :class:`~torchlasso.estimators.convex.LinearProblem`.
        positive: whether all weights are at least 0.
        without: the numbers of groups that no model reads.

    Raises:
        ValueError: weights are to be at least 0, and there are several outputs, or groups of several features.
    """

    x: LinearRows
    targets: TrainingLoss
    groups: FeatureGroups
    l1_ratio: float
    intercept: bool
    tolerance: float
    positive: bool = False
    without: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        groups = self.groups.for_linear(self.l1_ratio, positive=self.positive)
        groups.l1[sorted(self.without)] = torch.inf
        self.problem = LinearProblem(self.x, self.targets, groups, self.targets.outputs, self.intercept, self.tolerance)

    @property
    def lambda_max(self) -> float:
        """The least λ at which only the features live that are kept."""
        return self.problem.lambda_max

    def at(self, lam: float) -> Fitted:
        """Return the model for one λ; warn if it is not exact."""
        return self._fitted(lam, self.solution(lam))

    def solution(self, lam: float, start: Solution | None = None) -> Solution:
        """Return the solution for one λ, found from that for another one; warn if it is not exact."""
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

    def with_features(self, count: int, lam: float) -> Fitted:
        """Return the model for the largest λ found at which so many features are read; a group counts once.

        Copies of a column that would be read are left out. If several features enter at the same λ, the first of them
        do, and the others are left out.

        Raises:
            ValueError: no λ leaves so many features.
        """
        high, low = self.lambda_max, self.lambda_max / 2
        above, below = None, self.solution(low)
        for _ in range(HALVINGS):
            if self._count(below) >= count:
                break
            high, above = low, below
            low, below = low / 2, self.solution(low / 2, below)
        if (most := self._count(below)) < count:
            raise ValueError(f"no λ leaves {count} features: at λ = {low:.2g} the model reads {most}")
        tries = [] if most == count else self._around(below, count, low, high)
        for _ in range(HALVINGS):
            if self._count(below) == count:
                copies = self._copies(_live(below))
                if not copies:
                    return self._fitted(low, below)
                return replace(self, without=self.without | copies).with_features(count, lam)
            middle, start = tries.pop() if tries else ((low * high) ** 0.5, below)
            if not low < middle < high:
                break
            found = self.solution(middle, start)
            if self._count(found) >= count:
                low, below = middle, found
            else:
                high, above = middle, found
        others = self._later_of(count, below, above)
        if others <= self.without:
            raise ValueError(f"no λ leaves exactly {count} features: several leave at λ = {low:.6g}")
        return replace(self, without=self.without | others).with_features(count, lam)

    def _around(self, found: Solution, count: int, low: float, high: float) -> list[tuple[float, Solution]]:
        """Return two λ close together, and solutions to begin with: the groups that are read reach a number there.

        Only features that are nearly read are looked at, so that this costs no pass over the table.

        Args:
            found: the solution for ``low``, of more groups.
            count: the number of groups.
            low, high: the λ between which the number is reached.
        """
        likely = self.problem.near(found, low)
        if likely is None:
            return []
        problem, rows = likely
        starts = [below := Solution(found.coef[rows], found.intercept)] * 2
        while high / low > 1 + CLOSE:
            middle = (low * high) ** 0.5
            below = problem.minimum(middle, below)
            reads = int((problem.groups.norms(below.coef) > 0).sum())
            if reads >= count:
                low, starts[0] = middle, below
            else:
                high, starts[1] = middle, below
            if reads == count:
                break
        empty = torch.zeros_like(found.coef)
        wholes = [Solution(empty.index_copy(0, rows, each.coef), each.intercept) for each in starts]
        return [(high, wholes[1]), (low, wholes[0])]

    def _later_of(self, count: int, below: Solution, above: Solution | None) -> frozenset[int]:
        """Return all groups but those that are read above a λ, and the first of those that enter there."""
        before = np.zeros_like(_live(below)) if above is None else _live(above)
        entering = np.unique(self.groups.numbers[_live(below) & ~before])
        allowed = np.union1d(self.groups.numbers[before], entering[: count - self.groups.count(before)])
        return frozenset(range(len(self.groups.members))) - set(allowed.tolist())

    def _copies(self, live: Numbers) -> frozenset[int]:
        """Return the groups of live columns that are copies of earlier ones, up to scale and mean: single columns."""
        single = np.bincount(self.groups.numbers)[self.groups.numbers] == 1
        columns = np.flatnonzero(live & single)
        x = self.x[:, torch.from_numpy(columns)]
        x = x - x.mean(dim=0) if self.intercept else x
        x = x / x.norm(dim=0)
        is_copy = ((x.mT @ x).abs() > 1 - COPY).triu(1).any(dim=0)
        return frozenset(self.groups.numbers[columns[is_copy.numpy()]].tolist())

    def _count(self, found: Solution) -> int:
        return self.groups.count(_live(found))

    def _fitted(self, lam: float, found: Solution) -> Fitted:
        loss = float(self.targets.value(self.x @ found.coef + found.intercept))
        point = PathPoint(lam, _live(found), loss)
        return Fitted(point, LinearModel(found.coef.numpy(), found.intercept.numpy()))

    def along(self, lams: Sequence[float]) -> list[Fitted]:
        """Return the models for rising λ, found from the largest λ down."""
        found: list[Fitted] = []
        start: Solution | None = None
        for lam in reversed(lams):
            start = self.solution(lam, start)
            found.insert(0, self._fitted(lam, start))
        empty = [i for i, each in enumerate(found) if each.point.features <= len(self.groups.kept)]
        return found[: empty[0] + 1] if empty else found

    def relaxed(self, found: Fitted) -> Fitted:
        """Return the model of the same features without their penalty, see :meth:`LinearProblem.refitted`."""
        coef, intercept = found.model.linear  # type: ignore[misc]  # the models of this path are linear
        before = Solution(torch.from_numpy(coef), torch.from_numpy(intercept))
        after = self.problem.refitted(before, self.targets.weights)
        after = self._centred(after) if self.targets.is_shift_invariant else after
        loss = float(self.targets.value(self.x @ after.coef + after.intercept))
        return Fitted(replace(found.point, loss=loss), LinearModel(after.coef.numpy(), after.intercept.numpy()))

    def rising(self, first: Fitted, points: int) -> list[PathPoint]:
        """Return points for rising values of λ, from a model to the λ at which nothing lives that is not kept."""
        path, lam = [first.point], first.point.lam
        if lam < self.lambda_max:
            lams = np.geomspace(max(lam, SMALLEST * self.lambda_max), self.lambda_max, points)[1:]
            path += [each.point for each in self.along(lams.tolist())]
        return path

    def grid(self, number: int) -> list[float]:
        """Return rising values of λ up to the least one at which nothing lives that is not kept."""
        most = self.lambda_max or 1.0
        n, p = self.x.shape
        return list(np.geomspace((SMALLEST_WIDE if p > n else SMALLEST) * most, most, number).tolist())

    def null_lam(self, level: float, seed: int) -> float:
        """Return the λ at which no feature is read in this share of random orders of the targets.

        The quantile universal threshold of Giacobino, Sardy, Diaz-Rodriguez and Hengartner (2017): a quantile of the
        least λ for which zero is the solution.
        """
        slope, n = self.problem.slope_at_zero, len(self.x)
        order = np.random.default_rng(seed)
        found = []
        for _ in range(PERMUTATIONS // AT_ONCE):
            rows = torch.from_numpy(np.stack([order.permutation(n) for _ in range(AT_ONCE)], axis=1))  # (n, AT_ONCE)
            found.append(self.problem.lambdas_max(slope[rows]))
        return float(torch.cat(found).quantile(level))


def _live(found: Solution) -> np.ndarray:
    return np.asarray((found.coef != 0).any(dim=1).cpu().numpy())
