"""Classification by few features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from torchlasso.estimators.base import DTYPES, Self, SparseEstimator, Table, row_groups, scaled_weights
from torchlasso.estimators.cross_validation import CrossValidatedStrength
from torchlasso.estimators.given import GivenStrength
from torchlasso.estimators.losses import LOGISTIC, MULTINOMIAL, Targets
from torchlasso.estimators.points import Numbers


@dataclass(eq=False, repr=False)
class SparseClassification(ClassifierMixin, SparseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The training and the predictions of classifiers, whatever chooses λ."""

    _: KW_ONLY
    class_weight: Mapping[Any, float] | str | None = None

    def fit(self: Self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Args:
            X: (n, p) numbers, an array, a data frame or a sparse matrix.
            y: (n,) classes.
            sample_weight: (n,) weights; a row of weight 2 is as two rows, and one of weight 0 as none.
            groups: (n,) the group of each row, such as the person it is of. Rows of a group stay together where rows
                are divided: into folds, for early stopping, and to choose how a network is trained.

        Raises:
            ValueError: fewer than two classes, numbers that are not finite, a parameter that is of no use; no λ leaves
                as many features as were asked for.
        """
        self._check()
        return self._train(self._table(X, y, sample_weight, groups))

    def _table(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Table:
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=DTYPES)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.classes_ = np.unique(y[weights > 0])
        if len(self.classes_) == 1:
            [only] = self.classes_.tolist()
            raise ValueError(f"{type(self).__name__} needs rows of two classes at least; got one class, {only!r}")
        codes = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)  # a class of weight 0 may have any
        if self.class_weight is not None:
            known = weights > 0
            own = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y[known], sample_weight=weights[known]
            )
            weights = weights * own[codes]
        outputs, loss = (1, LOGISTIC) if len(self.classes_) == 2 else (len(self.classes_), MULTINOMIAL)
        targets = Targets(torch.from_numpy(codes.astype(np.float64)[:, None]), scaled_weights(weights), outputs, loss)
        return Table(self.as_rows(X), y, targets, row_groups(groups, len(y)))

    def _strata(self, table: Table) -> Numbers:
        return table.y

    def decision_function(self, X: Any) -> Numbers:
        """Return the log odds of the second class, (n,), or an output for each class, (n, classes)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def predict(self, X: Any) -> Numbers:
        """Return the most likely class of each row, (n,)."""
        outputs = self.decision_function(X)
        codes = (outputs > 0).astype(int) if outputs.ndim == 1 else outputs.argmax(axis=1)
        return np.asarray(self.classes_[codes])

    def predict_log_proba(self, X: Any) -> Numbers:
        """Return the logarithm of the probability of each class, (n, classes)."""
        outputs = torch.from_numpy(self._outputs(X))
        if outputs.shape[1] == 1:
            outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
        return outputs.log_softmax(dim=1).numpy()

    def predict_proba(self, X: Any) -> Numbers:
        """Return the probability of each class, (n, classes)."""
        return np.exp(self.predict_log_proba(X))

    @property
    def coef_(self) -> Numbers:
        """The weights of a model without hidden layers, (1, features) for two classes, else (classes, features)."""
        return self._linear.coef.T

    @property
    def intercept_(self) -> Numbers:
        """The constant terms of a model without hidden layers, (1,) for two classes, else (classes,)."""
        return self._linear.intercept


@dataclass(eq=False, repr=False)
class SparseClassifier(SparseClassification, GivenStrength):
    """A classifier that reads few features.

    minimise  mean cross-entropy + λ·Σ_g √|g|·(ρ·‖w_g‖ + (1 − ρ)/2·‖w_g‖²)

    with w_g all weights that read the features of group g. By default each feature is a group, and the model is a
    linear one plus a multilayer perceptron; with ``hidden=()`` it is linear, and the minimum is exact: for two classes
    that of scikit-learn's ``LogisticRegression(l1_ratio=ρ, C=1/(λ·n))``. With more classes a feature leaves all of them
    at once. With hidden layers, all later weights have a weight decay tied to λ, without which they would grow and
    undo the penalty (:class:`torchlasso.Inputs`); and the penalty of a feature is MCP's by default. Scale the features
    of a linear model before, or by ``standardize``: the penalty is the same for all.

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
        class_weight: as in scikit-learn: None, "balanced", or class ↦ weight.
        fit_intercept: whether a linear model has a constant term.
        positive: whether the weights of a linear model, with two classes are at least 0, each feature by itself.
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
        classes_: the classes.
        lam_: the λ of the model.
        path_: points for ``lam_`` and rising λ, each with ``lam``, ``live`` (a mask of features), ``features`` and
            ``loss``.
        support_: a mask of the features that the model reads.
        feature_importances_: the largest λ at which each feature is read.
        coef_, intercept_: of a linear model, as in scikit-learn.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.preprocessing import StandardScaler
        >>> x, y = load_breast_cancer(return_X_y=True)
        >>> x = StandardScaler().fit_transform(x)
        >>> model = SparseClassifier(features=5, hidden=()).fit(x, y)
        >>> model.support_.nonzero()[0]
        array([ 7, 20, 21, 27, 28])
        >>> model.score(x, y) > 0.95
        True
    """


@dataclass(eq=False, repr=False)
class SparseClassifierCV(SparseClassification, CrossValidatedStrength):
    """A classifier that reads few features, and chooses λ by cross-validation.

    Each fold is trained for the same rising λ, one model from the one before.

    Args:
        lams: values of λ, or their number: they are then spaced evenly in log λ, up to the one at which a linear model
            for all rows reads nothing.
        cv: folds, as in scikit-learn: a number (5 by default), a splitter, or pairs of training and test rows. With
            ``groups`` in :meth:`fit`, all rows of a group are in one fold.
        rule: ``"best"``: the λ of the best mean score. ``"one-se"``: the largest one within one standard error of it.
        scoring: a name or a function of scikit-learn's; the accuracy by default.
        n_jobs: the number of folds that are trained at the same time, through joblib. The model is the same for all.
        penalty: with ``"auto"`` and hidden layers, the folds are trained under MCP and under L1, and the penalty of the
            best mean score is taken. Under noise it is L1's.

    The other parameters and attributes are those of :class:`SparseClassifier`.

    Attributes:
        penalty_: the penalty.
        lams_: the values of λ, rising.
        scores_: the scores, (λ, folds).
        features_: the numbers of features, (λ, folds).
        lam_: the chosen λ.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.preprocessing import StandardScaler
        >>> x, y = load_breast_cancer(return_X_y=True)
        >>> model = SparseClassifierCV(hidden=(), rule="one-se", lams=10).fit(StandardScaler().fit_transform(x), y)
        >>> model.support_.sum() < 15, model.scores_.mean(axis=1).max() > 0.95
        (np.True_, np.True_)
    """
