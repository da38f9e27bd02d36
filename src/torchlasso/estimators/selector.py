"""The selection of features as a step of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from torchlasso._core.arguments import check_kind, check_whole
from torchlasso._core.specs import unknown
from torchlasso.estimators.base import DTYPES
from torchlasso.estimators.classifier import SparseClassifier, SparseClassifierCV
from torchlasso.estimators.cox import SparseCox, SparseCoxCV
from torchlasso.estimators.cross_validation import RULES
from torchlasso.estimators.events import is_structured
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.regressor import SparseRegressor, SparseRegressorCV
from torchlasso.estimators.stability import StabilitySelection

SEARCHES = {SparseClassifier: SparseClassifierCV, SparseRegressor: SparseRegressorCV, SparseCox: SparseCoxCV}


@dataclass(eq=False, repr=False)
class FeatureSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A step of a pipeline that passes on only the features that a sparse model reads.

    Args:
        estimator: :class:`SparseClassifier`, :class:`SparseRegressor` or :class:`SparseCox` with the parameters of your
            choice; by default the one that suits the targets.
        features: the number of features; or ``"one-se"`` or ``"best"``, for those of the λ that
            :class:`SparseClassifierCV`, :class:`SparseRegressorCV` or :class:`SparseCoxCV` chooses by this rule.
        fdr: the wanted false discovery rate of :class:`StabilitySelection`, in the place of ``features``.
        pairs: of halves of the rows, for the stability selection.
        lams, cv, scoring: of the cross-validation.
        n_jobs: the number of processes of the cross-validation and of the stability selection.
        random_state: of the default estimator and of the stability selection: an int for the same selection again.

    Attributes:
        estimator_: the sparse model, or the :class:`StabilitySelection`.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Examples:
        >>> import pandas as pd
        >>> names = ["age", "dose", "weight", "height"]
        >>> x = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 4)), columns=names)
        >>> selector = FeatureSelector(SparseRegressor(hidden=()), features=2).set_output(transform="pandas")
        >>> selector.fit_transform(x, x["dose"] - x["weight"]).columns.tolist()
        ['dose', 'weight']
    """

    estimator: GivenStrength | None = None
    _: KW_ONLY
    features: int | str = "one-se"
    fdr: float | None = None
    pairs: int = 50
    lams: int | Sequence[float] = 20
    cv: Any = None
    scoring: Any = None
    n_jobs: int | None = None
    random_state: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> FeatureSelector:
        """Select features.

        Args:
            X: (n, p) numbers, an array, a data frame or a sparse matrix.
            y: (n,) classes, (n,) or (n, targets) numbers, or events and times, as for :class:`SparseCox`. Without an
                estimator these are a structured array.
            sample_weight: (n,) weights; with ``fdr`` they are the ``row_weights`` of :class:`StabilitySelection`.
            groups: (n,) the group of each row; rows of a group stay together where rows are divided.

        Raises:
            ValueError: numbers that are not finite, a parameter that is of no use; no λ leaves as many features as
                were asked for.
        """
        checks: dict[str, Any] = {"accept_sparse": "csr", "dtype": DTYPES, "ensure_min_samples": 2}
        if is_structured(y) or isinstance(self.estimator, SparseCox):
            validate_data(self, X, **checks)  # the model checks the events and times
        else:
            validate_data(self, X, y, **checks, multi_output=True)
        estimator = self._estimator(y)
        if self.fdr is not None:
            # without an estimator, networks of its own, which are trained as one
            base = None if self.estimator is None else estimator
            options = {"pairs": self.pairs, "n_jobs": self.n_jobs, "random_state": self.random_state}
            stable = StabilitySelection(base, fdr=self.fdr, **options)
            self.estimator_: Any = stable.fit(X, y, groups=groups, row_weights=sample_weight)
            return self
        if isinstance(self.features, str):
            if self.features not in RULES:
                raise unknown("features", self.features, RULES)
            search = SEARCHES[type(estimator)]
            shared = {each.name for each in fields(search)} & set(estimator.get_params(deep=False))
            own = {name: value for name, value in estimator.get_params(deep=False).items() if name in shared}
            options = {"lams": self.lams, "cv": self.cv, "scoring": self.scoring, "n_jobs": self.n_jobs}
            estimator = search(**own, **options, rule=self.features)
        else:
            check_whole("features", self.features)
            estimator.set_params(features=self.features)
        self.estimator_ = estimator.fit(X, y, sample_weight=sample_weight, groups=groups)
        return self

    def _estimator(self, y: Any) -> Any:
        if self.estimator is not None:
            expected = "a SparseClassifier, a SparseRegressor or a SparseCox"
            check_kind("FeatureSelector: estimator", self.estimator, tuple(SEARCHES), expected)
            return clone(self.estimator)
        if is_structured(y):
            return SparseCox(random_state=self.random_state)
        is_classes = type_of_target(y, input_name="y") in ("binary", "multiclass")
        return (SparseClassifier if is_classes else SparseRegressor)(random_state=self.random_state)

    def _get_support_mask(self) -> Numbers:
        check_is_fitted(self)
        return np.asarray(self.estimator_.support_)

    @property
    def feature_importances_(self) -> Numbers:
        """The largest λ at which each feature is read; of a stability selection, the score of each feature."""
        check_is_fitted(self)
        model = self.estimator_
        return np.asarray(model.scores_ if isinstance(model, StabilitySelection) else model.feature_importances_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags
