"""The choice of λ by its value, by a number of features, or by what pure noise would select."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch

from torchlasso._core.arguments import check_whole
from torchlasso.control.misses import TargetMissed
from torchlasso.estimators.base import SparseEstimator, Table, check_number
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.models import Fitted, ModelPath
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.sparse_rows import varying_columns

# The share of rows that tell whether networks are to start under L1, and the fewest rows, or groups of them, that can.
HELD_OUT, FEWEST = 0.25, 20
SCALES = 2.0 ** -np.arange(0, 3.5, 0.5)
NULL_LEVEL = 0.95  # the probability that nothing is selected where nothing matters
FIRST = 0.01  # the λ at which the search for a number of features begins, unless there is another


@dataclass(eq=False, repr=False)
class GivenStrength(SparseEstimator):
    """An estimator whose λ, or whose number of features, is given."""

    lam: float | str = 0.01
    _: KW_ONLY
    features: int | None = None

    def _check(self) -> None:
        super()._check()
        if isinstance(self.lam, str):
            if self.lam != "null":
                raise ValueError(f'lam must be a number of at least 0, or "null"; got {self.lam!r}')
        else:
            check_number("lam", self.lam)
        if self.features is not None:
            check_whole("features", self.features)

    def _chosen(self, table: Table, groups: FeatureGroups, seed: int) -> tuple[ModelPath, Fitted]:
        most = len(groups.members)
        if self.features is not None and self.features > most:
            what = "features" if most == groups.features else "groups of features"
            raise ValueError(f"features must be at most the number of {what}, {most}; got {self.features}")
        if self.features is not None and self.is_linear and (self.fit_intercept or table.targets.ignores_shifts):
            varies = varying_columns(table.x)
            varies[sorted(groups.kept)] = True
            varying = groups.count(varies)
            if self.features > varying:
                raise ValueError(
                    f"features must be at most the number of those that vary, {varying}; got {self.features}"
                )
        if self.features is not None and (table.y == table.y[0]).all():
            raise ValueError("no feature says anything about y, which is the same in all rows: leave features out")
        path = self._path(table, groups, seed)
        if self.features is None:
            return path, path.at(path.null_lam(NULL_LEVEL, seed) if isinstance(self.lam, str) else float(self.lam))
        found = self._with_features(path, self.features)
        if not self._finds_more_from_convex(table, groups, seed):
            return path, found
        other = self._path(table, groups, seed, starts_convex=True)
        more = self._with_features(other, self.features)
        # with the same features, networks under MCP from the start fit better: the others had a part of their epochs
        return (path, found) if np.array_equal(found.point.live, more.point.live) else (other, more)

    def _with_features(self, path: ModelPath, count: int) -> Fitted:
        return path.with_features(count, FIRST if isinstance(self.lam, str) else self.lam)

    def _finds_more_from_convex(self, table: Table, groups: FeatureGroups, seed: int) -> bool:
        """Return whether networks that start under L1 find features of a smaller loss on rows that are held out.

        Under MCP from the start, networks keep features that learned noise by heart; from L1 on, they lose some of many
        features that say nearly the same. The rows tell which of the two is the case. The losses are those of the
        outputs at their best scale: a network without a penalty is too sure of its classes, with good features too.
        """
        count = self.features
        if self.penalty != "auto" or count is None or self.is_linear:
            return False
        if table.answers < groups.features:  # all networks start so
            return False
        units = len(table.x) if table.groups is None else len(np.unique(table.groups))
        if units < FEWEST or count >= len(groups.members):
            return False
        training, held_out = self._parts(table, seed, HELD_OUT)
        if training.answers < groups.features:  # as with all rows, if these are fewer than the features
            return True
        varying = groups.count((training.x != training.x[0]).any(axis=0))
        if count > varying or not held_out.targets.weights.any():
            return False

        def trial(starts_convex: bool) -> tuple[float, Numbers]:
            path = self._path(training, groups, seed, starts_convex)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TargetMissed)  # it says nothing of the model that is returned
                found = self._with_features(path, count)
            outputs = torch.from_numpy(found.model.outputs(held_out.x))
            targets = held_out.targets.to(outputs.dtype)
            # a regression has no other middle than that of its targets
            middle = outputs.mean(dim=0) if targets.is_quadratic else torch.zeros(())
            losses = [float(targets.value(middle + scale * (outputs - middle))) for scale in SCALES]
            return min(losses), found.point.live

        (convex, ours), (without, theirs) = trial(True), trial(False)
        # the same features say nothing, and fewer than were asked for are no choice
        return bool(ours.sum() >= theirs.sum()) and not np.array_equal(ours, theirs) and convex < without
