"""Stability selection: features that many halves of the data select, with a bound on the false ones."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.feature_selection import SelectorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)

from torchlasso._core.arguments import check_whole, is_number, shown
from torchlasso.engine import engine_of
from torchlasso.estimators.base import DTYPES, SparseEstimator, as_dense, row_groups, scaled_weights
from torchlasso.estimators.classifier import SparseClassifier
from torchlasso.estimators.cox import SparseCox
from torchlasso.estimators.entries import LinearEntries, fitted_importances
from torchlasso.estimators.error_control import StabilityPaths, null_bound, stability_paths
from torchlasso.estimators.events import events_and_times, is_structured
from torchlasso.estimators.feature_groups import FeatureGroups, groups_of_features
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.regressor import SparseRegressor
from torchlasso.estimators.sensitivities import networks_of
from torchlasso.estimators.standardized import ColumnScales
from torchlasso.estimators.subsamples import LEAST, complementary_pairs

DEEP = 20.0  # paths go on until the bound at their last point is so many times the cutoff of its mean
# of the default estimator. Halves are small: few hidden units at a high rate, and all rows in a batch.
NETWORK: dict[str, Any] = {"lam": 0.01, "penalty": "l1", "hidden": (16,), "lr": 0.03, "epochs": 200, "batch_size": 1000}


@dataclass(eq=False, repr=False)
class StabilitySelection(SelectorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A selection of features by the wanted share of false ones.

    A model is fitted to each of 2·B halves of the rows: B pairs, the halves of a pair without a common row. With π_j(λ)
    the share of the halves in which feature j is selected at λ, the score of a feature is the mean over λ, on a
    logarithmic scale, of max(2·π_j(λ) − 1, 0)^m, and the expected number of false positives among the features with a
    score of at least s is at most I/s, with

        I = the mean over λ of p·E(Z/B)^m,   Z binomial: B draws with probability (q(λ)/p)²,

    q(λ) the mean number of selected features, and p the number of all. This is derived, with its assumptions, in the
    mathematics of the documentation. The bound over the number of features with at least this score estimates the false
    discovery rate; a feature's q-value is the smallest such estimate of a selection with it.

    Args:
        estimator: a :class:`SparseClassifier`, :class:`SparseRegressor` or :class:`SparseCox`. Without hidden layers,
            the features that are selected at λ are those that the model reads at this λ or a larger one. With hidden
            layers, λ is the one of the estimator, and a feature is selected at a threshold if the network is at least
            as sensitive to it: the root mean square, over rows, of the derivative of the outputs. Or any estimator
            with ``feature_importances_`` or ``coef_``, such as trees, and these importances. None: a small network,
            for classes, for numbers after scaling them to variance 1, or for events and times in a structured array.
        fdr: the wanted false discovery rate, in (0, 1]: features with a q-value of at most this are selected.
        max_false: the wanted bound on the expected number of false positives, in the place of ``fdr``.
        pairs: B, the number of pairs of halves.
        lams: the λ of models without hidden layers, and the thresholds of others; None for a hundred thresholds from
            the largest at which a feature is selected, as far as I is at most ``cutoff``.
        power: m, 1 to 3. The bound for 1 has the weaker assumptions, the one for 3 selects more.
        cutoff: the largest I, if ``lams`` is None.
        n_jobs: the number of processes, as in joblib. It does not change the results.
        random_state: an int for the same selection again, to the bit.

    Attributes:
        support_: a mask of the selected features.
        scores_: the score of each feature.
        efp_: the bound on the expected number of false positives among the features with at least this score.
        q_values_: the q-value of each feature.
        lams_: the thresholds, falling.
        frequencies_: the share of the halves in which each feature is selected at each threshold, (points, features).
        expected_false_: the bound of Meinshausen and Bühlmann on the expected number of false positives among the
            features whose largest frequency is at least this one's; it does not use the integral.
        table_: the features with the smallest q-value first, as columns for ``pandas.DataFrame(selector.table_)``.
        n_features_in_, feature_names_in_: as in scikit-learn.

    The features of a group, and those that are always kept, are as in the estimator: a group counts as one feature, and
    those kept are selected and do not count.

    Sources: Meinshausen and Bühlmann 2010 (stability selection); Shah and Samworth 2013 (pairs of halves); Melikechi
    and Miller 2024 (the integral and its bounds); Melikechi, Dunson and Miller 2025 (importances in the place of λ, and
    q-values).

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(200, 20))
        >>> y = x[:, 3] - x[:, 7] + np.random.default_rng(1).normal(size=200)
        >>> selector = StabilitySelection(SparseRegressor(hidden=()), fdr=0.1, pairs=5, random_state=0).fit(x, y)
        >>> selector.get_support(indices=True)
        array([3, 7])
        >>> selector.transform(x).shape
        (200, 2)
    """

    estimator: Any = None
    _: KW_ONLY
    fdr: float = 0.1
    max_false: float | None = None
    pairs: int = 50
    lams: Any = None
    power: int = 3
    cutoff: float = 0.05
    n_jobs: int | None = None
    random_state: Any = None

    def fit(self, X: Any, y: Any, groups: Any = None, row_weights: Any = None) -> StabilitySelection:
        """Select the features.

        Args:
            X: (n, p) numbers, an array, a data frame or a sparse matrix. Scale the features before; networks of
                this library do so by themselves.
            y: (n,) classes or numbers, (n, targets) numbers, or events and times, as for :class:`SparseCox`. Without an
                estimator these are a structured array.
            groups: (n,) the group of each row, such as the animal that it was measured on: rows of one group are in the
                same half.
            row_weights: (n,) weights of the rows in each model; one of weight 0 is as none. Unlike scikit-learn's
                ``sample_weight``, 2 does not stand for two rows, which could be in both halves: each half has half of
                the rows, whatever their weights, since the bounds need rows that are drawn alike.

        Raises:
            ValueError: fewer than four rows or groups, fewer than two classes or events, numbers that are not finite,
                an estimator that takes no weights, or a parameter that is of no use.
        """
        self._check()
        is_survival = is_structured(y) or isinstance(self.estimator, SparseCox)
        checks: dict[str, Any] = {"accept_sparse": "csr", "dtype": DTYPES, "ensure_min_samples": LEAST}
        classes = events = None
        if is_survival:
            X = validate_data(self, X, **checks)
            events, _ = events_and_times(y)
            check_consistent_length(X, events)
        else:
            X, y = validate_data(self, X, y, **checks, multi_output=True)
        x, y, weights = csr_array(X) if issparse(X) else X, np.asarray(y), None
        if row_weights is not None:
            given = _check_sample_weight(row_weights, X, ensure_non_negative=True)
            kept = scaled_weights(given).numpy() > 0
            x, y = x[kept], y[kept]
            weights = None if np.ptp(given[kept]) == 0 else scaled_weights(given[kept]).numpy()
            events = None if events is None else events[kept]
            groups = None if groups is None else row_groups(groups, len(kept))[kept]  # type: ignore[index]
        self.estimator_ = self._estimator(y, is_survival)
        if is_classifier(self.estimator_):
            y = column_or_1d(y, warn=True)
            known, classes = np.unique(y, return_inverse=True)
            if len(known) == 1:
                [only] = known.tolist()
                raise ValueError(f"{type(self).__name__} needs rows of two classes at least; got one class, {only!r}")
        elif self.estimator is None and not is_survival:
            y = StandardScaler().fit_transform(y.reshape(len(y), -1), sample_weight=weights)
        units = row_groups(groups, len(y))
        random = check_random_state(self.random_state)
        halves = complementary_pairs(np.arange(len(y)) if units is None else units, self.pairs, random, classes, events)
        partition, entries, lowest = self._entries(x, y, weights, halves, random)
        paths = stability_paths(
            entries[:, ~partition.is_kept],
            power=self.power,
            cutoff=self.cutoff,
            lowest=lowest,
            lams=self._thresholds,
        )
        self._keep(paths, partition)
        return self

    def _check(self) -> None:
        for name, most in (("fdr", 1.0), ("max_false", None), ("cutoff", None)):
            value = getattr(self, name)
            if name == "max_false" and value is None:
                continue
            if not is_number(value) or value <= 0 or (most is not None and value > most):
                raise ValueError(f"{name} must be a number above 0{' and at most 1' if most else ''}; got {value!r}")
        check_whole("pairs", self.pairs)
        check_whole("power", self.power, most=3)

    @property
    def _thresholds(self) -> Numbers | None:
        """The given thresholds, falling.

        Raises:
            ValueError: they are not numbers above 0.
        """
        if self.lams is None:
            return None
        lams = np.asarray(self.lams, dtype=float)
        if lams.ndim != 1 or not len(lams) or not np.isfinite(lams).all() or (lams <= 0).any():
            raise ValueError(f"lams must be a list of numbers above 0; got {shown(self.lams)}")
        return np.unique(lams)[::-1]

    def _estimator(self, y: Numbers, is_survival: bool) -> Any:
        if self.estimator is not None:
            return clone(self.estimator)
        if is_survival:
            return SparseCox(**NETWORK)
        is_numbers = type_of_target(y).startswith("continuous")
        return (SparseRegressor if is_numbers else SparseClassifier)(**NETWORK)

    def _entries(
        self, x: Numbers, y: Numbers, weights: Numbers | None, halves: list[Numbers], random: np.random.RandomState
    ) -> tuple[FeatureGroups, Numbers, float]:
        """Return the groups of features, the importance of each in each half, and the least that is known in all."""
        base, features = self.estimator_, x.shape[1]
        engine, numbers = engine_of(self.n_jobs), range(len(halves))
        seeds = random.randint(2**31 - 1, size=len(halves)).tolist()
        is_linear = isinstance(base, SparseEstimator) and base.is_linear
        x = base.as_rows(x) if is_linear else as_dense(x)
        if not is_linear and not isinstance(base, GivenStrength):
            if weights is not None and not has_fit_parameter(base, "sample_weight"):
                raise ValueError(f"row_weights must be None: {type(base).__name__} takes no weights")

            def arguments(i: int) -> tuple[Any, ...]:
                own = None if weights is None else weights[halves[i]]
                return base, x[halves[i]], y[halves[i]], seeds[i], own

            importances = engine.results(fitted_importances, numbers, arguments)
            return groups_of_features(None, (), features, None), np.array(importances), 0.0
        base._check()
        if base.standardizes:
            scales = ColumnScales.of(x, np.ones(len(y)) if weights is None else weights)
            x, base = scales.scaled(x), clone(base).set_params(standardize=False)
        groups = groups_of_features(base.feature_groups, base.keep, features, getattr(self, "feature_names_in_", None))
        if is_linear:
            bounds = null_bound(np.arange(features + 1), features, self.pairs, self.power)
            # a model with a feature for each two rows fits noise, and takes long
            most = min(int((bounds <= DEEP * self.cutoff).sum()), max(1, min(map(len, halves)) // 2))
            options = base.l1_ratio, base.fit_intercept, base.tol, self._thresholds, most, base.positive
            linear = LinearEntries(groups, *options)
            table = base._table(x, y, weights)
            found = engine.results(linear, numbers, lambda i: ((some := table.some(halves[i])).x, some.targets))
            entries, ends = zip(*found, strict=True)
            return groups, np.array(entries), max(ends)
        table, _ = base._with_scaled_targets(base._table(x.astype(np.float32), y, weights))
        networks, size = networks_of(base, groups, table)
        sensitive = engine.results(
            networks, numbers[::size], lambda i: ([*map(table.some, halves[i : i + size])], seeds[i : i + size])
        )
        return groups, np.concatenate(sensitive), 0.0

    def _keep(self, paths: StabilityPaths, partition: FeatureGroups) -> None:
        """Set the attributes, for features instead of groups."""
        free, numbers = ~partition.is_kept, partition.numbers

        def spread(values: Numbers, kept: float) -> Numbers:
            whole = np.full((*values.shape[:-1], len(free)), kept)
            whole[..., free] = values
            return whole[..., numbers]

        self.lams_, self.frequencies_ = paths.lams, spread(paths.frequencies, 1.0)
        self.scores_, self.efp_ = spread(paths.scores, 1.0), spread(paths.efp, 0.0)
        self.q_values_, self.expected_false_ = spread(paths.q_values, 0.0), spread(paths.expected_false, 0.0)
        limit = self.q_values_ <= self.fdr if self.max_false is None else self.efp_ <= self.max_false
        self.support_ = limit & (self.scores_ > 0)

    @property
    def table_(self) -> dict[str, Numbers]:
        """The features with the smallest q-value first: their names, and a column for each figure."""
        check_is_fitted(self)
        order = np.lexsort([-self.scores_, self.q_values_])
        names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        most = self.frequencies_.max(axis=0, initial=0.0)
        columns = {
            "feature": np.asarray(names),
            "selected": self.support_,
            "q_value": self.q_values_,
            "efp": self.efp_,
            "score": self.scores_,
            "largest_frequency": most,
            "expected_false": self.expected_false_,
        }
        return {name: column[order] for name, column in columns.items()}

    def _get_support_mask(self) -> Numbers:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags
