"""Regression on few features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import _check_sample_weight, validate_data

from torchlasso.estimators.base import DTYPES, Self, SparseEstimator, Table, row_groups, scaled_weights
from torchlasso.estimators.cross_validation import CrossValidatedStrength
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.losses import SQUARED, Targets
from torchlasso.estimators.points import Numbers
from torchlasso.estimators.standardized import TargetScale


@dataclass(eq=False, repr=False)
class SparseRegression(RegressorMixin, SparseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The training and the predictions of regressions, whatever chooses λ."""

    def fit(self: Self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Args:
            X: (n, p) numbers, an array, a data frame or a sparse matrix.
            y: (n,) or (n, targets) numbers.
            sample_weight: (n,) weights; a row of weight 2 is as two rows, and one of weight 0 as none.
            groups: (n,) the group of each row, such as the person it is of. Rows of a group stay together where rows
                are divided: into folds, for early stopping, and to choose how a network is trained.

        Raises:
            ValueError: numbers that are not finite, a parameter that is of no use; no λ leaves as many features as were
                asked for.
        """
        self._check()
        return self._train(self._table(X, y, sample_weight, groups))

    def _table(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Table:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=DTYPES, multi_output=True, y_numeric=True)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self._is_flat = y.ndim == 1
        numbers = torch.from_numpy(np.array(y, dtype=np.float64).reshape(len(y), -1))
        targets = Targets(numbers, scaled_weights(weights), numbers.shape[1], SQUARED)
        return Table(self.as_rows(X), y, targets, row_groups(groups, len(y)))

    def _strata(self, table: Table) -> None:
        return None

    def _with_scaled_targets(self, table: Table) -> tuple[Table, TargetScale | None]:
        targets = table.targets
        if self.is_linear or not isinstance(targets, Targets):
            return table, None
        scale = TargetScale.of(targets)
        return table._replace(targets=scale.scaled(targets)), scale

    def predict(self, X: Any) -> Numbers:
        """Return the prediction for each row, (n,) or (n, targets)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @property
    def coef_(self) -> Any:
        """The weights of a model without hidden layers: (features,), or (targets, features)."""
        return self._shaped(self._linear.coef.T)

    @property
    def intercept_(self) -> Any:
        """The constant term of a model without hidden layers: a number, or (targets,)."""
        return self._shaped(self._linear.intercept)

    def _shaped(self, values: Numbers) -> Any:
        return values[0] if self._is_flat else values


@dataclass(eq=False, repr=False)
class SparseRegressor(SparseRegression, GivenStrength):
    """A regression that reads few features.

    minimise  mean of ½‖y − f(x)‖² + λ·Σ_g √|g|·(ρ·‖w_g‖ + (1 − ρ)/2·‖w_g‖²)

    with w_g all weights that read the features of group g. By default each feature is a group, and the model f is a
    linear one plus a multilayer perceptron; with ``hidden=()`` it is linear, and the minimum is exact: that of
    scikit-learn's ``Lasso`` or ``ElasticNet``, and of ``MultiTaskLasso`` for several targets, with ``alpha=λ``. With
    hidden layers, all later weights have a weight decay tied to λ, without which they would grow and undo the penalty
    (:class:`torchlasso.Inputs`); the penalty of a feature is MCP's by default; and y is scaled for training to mean 0
    and, all targets by one factor, variance 1, which λ is for. Scale the features of a linear model before, or by
    ``standardize``.

    Args:
        lam: λ; or ``"null"`` for the λ at which 95 % of random orders of the targets would select nothing (the
            quantile universal threshold of Giacobino and others 2017). Where ``features`` is given and there are
            hidden layers, the λ to begin with.
        features: the number of features to read, or of groups of them; λ is found. With hidden layers, the model is
            then trained on for half of the epochs without the penalty (the relaxed lasso).
        hidden: the widths of the hidden layers; empty for a linear model.
        module: another network than the default one: a function (features, outputs) ↦ a ``torch.nn.Module``.
        penalty: of a model with hidden layers: ``"mcp"``, ``"scad"`` or ``"l1"``. MCP and SCAD shrink features less the
            stronger they are, and choose fewer that say the same. With ``"auto"`` and a given λ it is MCP. Where
            ``features`` is given, it is MCP, too, and a quarter of the rows, held out, tell whether to train under L1
            first, which keeps features from learning noise by heart; the model is then trained on all rows: two and a
            half times as long, or three and a half with L1 first. With more features than rows, networks under MCP and
            SCAD are always trained under L1 first; the rows of a group with the same target count as one.
        l1_ratio: ρ in (0, 1], as in scikit-learn: of a linear model, and under ``penalty="l1"``.
        feature_groups: features that are chosen together: lists of columns, or a mapping from names to lists of columns
            or to a pattern of their names, such as ``{"colour": "cat__colour_*"}`` after a ``ColumnTransformer``.
        keep: columns, names of groups or patterns that are not penalised.
        fit_intercept: whether a linear model has a constant term.
        positive: whether the weights of a linear model are at least 0, each feature by itself.
        standardize: whether columns are scaled to mean 0 and variance 1 on the training rows, of each fold its own.
            ``coef_`` is for the columns as they are, λ for the scaled ones. ``"auto"`` scales those of the default
            network, which learns little from columns of other sizes; but not those of a linear model, so that its λ is
            scikit-learn's, nor those of a ``module``.
        relaxed: whether the model is trained on without the penalty on the features that it reads (the relaxed lasso of
            Meinshausen 2007): a linear one to the minimum, with a ridge of 0.001 for columns of variance 1, a network
            for a tenth of the epochs. In cross-validation each point of the path is.
        points: the most points of the path after ``lam``, from which the importances follow.
        epochs, batch_size, lr: the training of a model with hidden layers by Adam's proximal form; the rate falls along
            a cosine. A point of the path is trained for a tenth of the epochs. A training that was far too short
            gives a ``ConvergenceWarning``: where the objective still falls, or weights are still on their way.
        early_stopping: whether the training of a model with hidden layers ends where its objective on validation rows
            rises, with the weights that it was least for.
        validation_fraction: the share of the rows, or of their groups, that are validation rows.
        n_iter_no_change: the number of epochs without a smaller objective after which the training ends.
        tol: the distance of a linear model from stationarity, relative to the largest gradient.
        random_state: an int for the same model again, to the bit.

    Attributes:
        lam_: the λ of the model.
        path_: points for ``lam_`` and rising λ, each with ``lam``, ``live`` (a mask of features), ``features`` and
            ``loss``.
        support_: a mask of the features that the model reads.
        feature_importances_: the largest λ at which each feature is read.
        coef_, intercept_: of a linear model, as in scikit-learn.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(100, 20))
        >>> y = x[:, 3] - 2 * x[:, 7]
        >>> model = SparseRegressor(lam=0.1, hidden=()).fit(x, y)
        >>> model.support_.nonzero()[0], model.coef_[[3, 7]].round(2)
        (array([3, 7]), array([ 0.89, -1.88]))
    """


@dataclass(eq=False, repr=False)
class SparseRegressorCV(SparseRegression, CrossValidatedStrength):
    """A regression that reads few features, and chooses λ by cross-validation.

    Each fold is trained for the same rising λ, one model from the one before.

    Args:
        lams: values of λ, or their number: they are then spaced evenly in log λ, up to the one at which a linear model
            for all rows reads nothing.
        cv: folds, as in scikit-learn: a number (5 by default), a splitter, or pairs of training and test rows. With
            ``groups`` in :meth:`fit`, all rows of a group are in one fold.
        rule: ``"best"``: the λ of the best mean score. ``"one-se"``: the largest one within one standard error of it.
        scoring: a name or a function of scikit-learn's; R² by default.
        n_jobs: the number of folds that are trained at the same time, through joblib. The model is the same for all.
        penalty: with ``"auto"`` and hidden layers, the folds are trained under MCP and under L1, and the penalty of the
            best mean score is taken. Under noise it is L1's.

    The other parameters and attributes are those of :class:`SparseRegressor`.

    Attributes:
        penalty_: the penalty.
        lams_: the values of λ, rising.
        scores_: the scores, (λ, folds).
        features_: the numbers of features, (λ, folds).
        lam_: the chosen λ.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(100, 20))
        >>> y = x[:, 3] - 2 * x[:, 7] + 0.5 * np.random.default_rng(1).normal(size=100)
        >>> SparseRegressorCV(hidden=(), rule="one-se", lams=10).fit(x, y).support_.nonzero()[0]
        array([3, 7])
    """
