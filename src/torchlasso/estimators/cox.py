"""Survival on few features: the model of Cox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, validate_data

from torchlasso._core.specs import unknown
from torchlasso.estimators.base import DTYPES, Self, SparseEstimator, Table, row_groups, scaled_weights
from torchlasso.estimators.concordance import concordance_index
from torchlasso.estimators.cross_validation import FOLDS, CrossValidatedStrength, FoldScorer, held_out_score
from torchlasso.estimators.events import events_and_times
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.models import Fitted, ModelPath
from torchlasso.estimators.points import Numbers
from torchlasso.training.survival import TIES, SurvivalTargets


@dataclass(eq=False, repr=False)
class SparseSurvival(SparseEstimator):
    """The training and the predictions of models of survival, whatever chooses λ."""

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
                are divided: into folds, for early stopping, and to choose how a network is trained.

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
        rows = scaled_weights(weights)
        if not event[weights > 0].any():
            raise ValueError("y has no event, so its rows have no order: some of them need one")
        targets = SurvivalTargets(torch.from_numpy(time), torch.from_numpy(event), rows, self.ties)
        return Table(self.as_rows(X), np.stack([event, time], 1), targets, row_groups(groups, len(time)))

    def predict(self, X: Any) -> Numbers:
        """Return the risk of each row, (n,): the logarithm of a factor on the rate of events."""
        return self._outputs(X)[:, 0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the concordance index: the share of pairs in which the row of the earlier event has the larger risk.

        Args:
            X: (n, p) numbers.
            y: as for :meth:`fit`.
            sample_weight: (n,) weights; the one of a pair is the product of those of its rows.
        """
        event, time = events_and_times(y)
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=float)
        return concordance_index(time, event, self.predict(X), weights)

    def _strata(self, table: Table) -> Numbers:
        return np.asarray(table.y[:, 0] > 0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = True
        return tags

    @property
    def coef_(self) -> Any:
        """The weights of a model without hidden layers, (features,)."""
        return self._linear.coef[:, 0]


@dataclass(eq=False, repr=False)
class SparseCox(SparseSurvival, GivenStrength):
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


def held_out_concordance(estimator: SparseEstimator, table: Table, training: Numbers, held_out: Numbers) -> float:
    """Return the concordance index of held-out rows, ½ if no two of them can be compared."""
    event, time, weights = *table.y[held_out].T, table.targets.weights[held_out].numpy()
    risk = estimator._model.outputs(table.x[held_out])[:, 0]
    return concordance_index(time, event > 0, risk, weights, otherwise=0.5)


def held_out_likelihood(estimator: SparseEstimator, table: Table, training: Numbers, held_out: Numbers) -> float:
    """Return the log partial likelihood of held-out rows among the training rows, for each of their events."""
    rows = np.concatenate([training, held_out])
    outputs = torch.from_numpy(estimator._model.outputs(table.x[rows])).to(torch.float64)
    targets = table.targets.some(torch.from_numpy(rows))
    return float(targets.likelihood_after(outputs, len(training)))  # type: ignore[attr-defined]  # of survival


SCORINGS: Mapping[str, FoldScorer] = {"concordance": held_out_concordance, "partial-likelihood": held_out_likelihood}


@dataclass(eq=False, repr=False)
class SparseCoxCV(SparseSurvival, CrossValidatedStrength):
    """A model of the risk of an event that reads few features, and chooses λ by cross-validation.

    Each fold is trained for the same rising λ, one model from the one before. All folds have about as many events.

    Args:
        lams: values of λ, or their number: they are then spaced evenly in log λ, up to the one at which a linear model
            for all rows reads nothing.
        cv: folds, as in scikit-learn: a number (5 by default), a splitter, or pairs of training and test rows. With
            ``groups`` in :meth:`fit`, all rows of a group are in one fold.
        rule: ``"best"``: the λ of the best mean score. ``"one-se"``: the largest one within one standard error of it.
        scoring: ``"concordance"``, the default: the concordance index of the held-out rows, ½ if no two of them can be
            compared. ``"partial-likelihood"``: the log partial likelihood of all rows minus the one of the training
            rows, divided by the number of held-out events: held-out rows are compared with all others (Verweij and Van
            Houwelingen 1993). Or a function of an estimator, X and y.
        n_jobs: the number of folds that are trained at the same time, through joblib. The model is the same for all.
        penalty: with ``"auto"`` and hidden layers, the folds are trained under MCP and under L1, and the penalty of the
            best mean score is taken.

    The other parameters and attributes are those of :class:`SparseCox`.

    Attributes:
        penalty_: the penalty.
        lams_: the values of λ, rising.
        scores_: the scores, (λ, folds).
        features_: the numbers of features, (λ, folds).
        lam_: the chosen λ.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 20))
        >>> time = rng.exponential(np.exp(-x[:, 3] + x[:, 7]))
        >>> survived = np.stack([time < 2, time.clip(max=2)], axis=1)  # observed until 2
        >>> SparseCoxCV(hidden=(), rule="one-se", lams=10).fit(x, survived).support_.nonzero()[0]
        array([3, 7])
    """

    def _check(self) -> None:
        super()._check()
        if isinstance(self.scoring, str) and self.scoring not in SCORINGS:
            raise unknown("scoring", self.scoring, SCORINGS)

    def _chosen(self, table: Table, groups: FeatureGroups, seed: int) -> tuple[ModelPath, Fitted]:
        folds = FOLDS if self.cv is None else self.cv
        events = int(self._strata(table).sum())
        if isinstance(folds, int | np.integer) and events < folds <= len(table.y):
            raise ValueError(f"each of the {folds} folds needs an event, and y has {events}; give a smaller cv")
        return super()._chosen(table, groups, seed)

    def _scorer(self) -> FoldScorer:
        named = SCORINGS.get(self.scoring or "concordance") if isinstance(self.scoring, str | None) else None
        return named or held_out_score(self, self.scoring)
