"""The choice of λ by its value, by a number of features, or by what pure noise would select."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from torchlasso._core.arguments import check_whole
from torchlasso.estimators.base import SparseEstimator, Table, check_number
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.models import Fitted, ModelPath

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
        path = self._path(table, groups, seed)
        if self.features is not None:
            return path, path.with_features(self.features, FIRST if isinstance(self.lam, str) else self.lam)
        return path, path.at(path.null_lam(NULL_LEVEL, seed) if isinstance(self.lam, str) else float(self.lam))
