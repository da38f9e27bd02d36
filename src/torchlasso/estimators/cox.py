"""Survival on few features: the model of Cox."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, validate_data

from torchlasso._core.specs import unknown
from torchlasso.estimators.base import DTYPES, Self, Table, as_dense, row_groups, row_weights
from torchlasso.estimators.concordance import concordance_index
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.survival import TIES, SurvivalTargets


@dataclass(eq=False, repr=False)
class SparseCox(GivenStrength):
    """A model of the risk of an event that reads few features (Cox 1972).

    minimise  −1/n · log PL(f) + λ·Σ_g √|g|·(ρ·‖w_g‖ + (1 − ρ)/2·‖w_g‖²)

    with w_g all weights that read the features of group g, and the partial likelihood PL: the probability of the order
    of the events if the risk of a row at any time is proportional to exp(f(x)). By default f is a linear model plus a
    multilayer perceptron; with ``hidden=()`` it is linear, and the minimum is exact: the one of scikit-survival's
    ``CoxnetSurvivalAnalysis`` with ``alphas=[λ]``. Under a network, the rows at risk are those of the same batch:
    choose ``batch_size`` as large as possible; and the penalty of a feature is MCP's by default.

    Args:
        lam: λ; or ``"null"`` for the λ at which 95 % of random orders of the targets would select nothing. Where
            ``features`` is given and there are hidden layers, the λ to begin with.
        features: the number of features to read, or of groups of them; λ is found. With hidden layers, the model is
            then trained on for half of the epochs without the penalty (the relaxed lasso).
        ties: the form of the likelihood for events at the same time: ``"breslow"``, or ``"efron"``, which is nearer to
            the truth where there are many.

    The other parameters and attributes are those of :class:`SparseRegressor`.

    Attributes:
        coef_: of a linear model, (features,).

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 20))
        >>> time = rng.exponential(np.exp(-x[:, 3] + x[:, 7]))
        >>> event = time < 2  # the others are observed until 2
        >>> model = SparseCox(features=2, hidden=()).fit(x, np.stack([event, time.clip(max=2)], axis=1))
        >>> model.support_.nonzero()[0]
        array([3, 7])
    """

    _: KW_ONLY
    ties: str = "breslow"
    batch_size: int = 500
    fit_intercept: bool = field(default=False, init=False)  # the partial likelihood has none

    def fit(self: Self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Args:
            X: (n, p) numbers, an array, a data frame or a sparse matrix.
            y: the events and the times, as in scikit-survival: a structured array of two fields, (n,); or two columns,
                (n, 2). Without an event, a time is the one until which the row was observed. Or the times only, (n,),
                if all rows have an event.
            sample_weight: (n,) weights; one of weight 0 is as none, and in Breslow's form one of weight 2 is as two
                rows.
            groups: (n,) the group of each row, such as the person it is of. Rows of a group stay together where rows
                are divided: into folds, and for early stopping.

        Raises:
            ValueError: no event, negative times, numbers that are not finite, a parameter that is of no use; no λ
                leaves as many features as were asked for.
        """
        self._check()
        if self.ties not in TIES:
            raise unknown("form of ties", str(self.ties), TIES)
        return self._train(self._table(X, y, sample_weight, groups))

    def _table(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Table:
        X = validate_data(self, X, accept_sparse="csr", dtype=DTYPES)
        event, time = events_and_times(y)
        check_consistent_length(X, time)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        rows = row_weights(weights)
        if not event[weights > 0].any():
            raise ValueError("y has no event, so its rows have no order: some of them need one")
        targets = SurvivalTargets(torch.from_numpy(time), torch.from_numpy(event), rows, self.ties)
        return Table(as_dense(X), np.stack([event, time], 1), targets, row_groups(groups, len(time)))

    def predict(self, X: Any) -> Numbers:
        """Return the risk of each row, (n,): the logarithm of a factor on the rate of events."""
        return self._outputs(X)[:, 0]

    def score(self, X: Any, y: Any) -> float:
        """Return the concordance index: the share of pairs in which the row of the earlier event has the larger risk.

        Args:
            X: (n, p) numbers.
            y: as for :meth:`fit`.
        """
        event, time = events_and_times(y)
        return concordance_index(time, event, self.predict(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = True
        return tags

    @property
    def coef_(self) -> Any:
        """The weights of a model without hidden layers, (features,)."""
        return self._linear.coef[:, 0]


def events_and_times(y: Any) -> tuple[Numbers, Numbers]:
    """Return whether each row had an event, (n,), and the times, (n,).

    Args:
        y: a structured array of an event and a time, (n,); two columns, (n, 2); or the times of events only, (n,).

    Raises:
        ValueError: it has another form, an event that is neither 0 nor 1, or a time that is negative or not finite.

    Examples:
        >>> events_and_times([[1, 2.5], [0, 4.0]])
        (array([ True, False]), array([2.5, 4. ]))
    """
    if y is None:
        raise ValueError("SparseCox requires y to be passed, but the target y is None")
    values = np.asarray(y)
    if values.dtype.names is not None:
        if len(values.dtype.names) != 2 or values.ndim != 1:
            raise ValueError(f"y must have two fields, the event and the time; got {values.dtype.names}")
        events, times = (values[name] for name in values.dtype.names)
    elif values.ndim == 2 and values.shape[1] == 2:
        events, times = values[:, 0], values[:, 1]
    elif values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        times = values.reshape(-1)
        events = np.ones(len(times), dtype=bool)
    else:
        raise ValueError(f"y must have the shape (n, 2), an event and a time for each row; got {values.shape}")
    try:
        times, events = times.astype(np.float64), events.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y must be numbers, an event and a time for each row: {error}") from error
    if not np.isin(events, (0.0, 1.0)).all():
        wrong = events[~np.isin(events, (0.0, 1.0))][0]
        raise ValueError(f"the events of y must be 0 or 1, in its first column; got {wrong:g}")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        wrong = times[~(np.isfinite(times) & (times >= 0))][0]
        raise ValueError(f"the times of y must be finite and at least 0, in its second column; got {wrong:g}")
    return events.astype(bool), times
