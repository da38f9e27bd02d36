"""The kinds of targets of a selection: their models, their scores, and the models to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from torchlasso.estimators import (
    SparseClassifier,
    SparseClassifierCV,
    SparseCox,
    SparseCoxCV,
    SparseRegressor,
    SparseRegressorCV,
)
from torchlasso.estimators.concordance import concordance_index
from torchlasso.estimators.points import Numbers

CLOSE = 1e-5  # the distance of linear models from stationarity, relative to the largest gradient


@dataclass(frozen=True)
class Task:
    """A kind of targets.

    Attributes:
        measure: the name of the score.
        peer: the name of the L1 model to compare with.
        every: the name of the model of all features.
        model: the estimator for a given λ or number of features.
        searching: the estimator that chooses λ by cross-validation.
        kinds: targets ↦ the kind of each row, (n,), of which each fold has its share.
        needed: kinds ↦ those that no fold can do without.
        needing: a kind ↦ its name in messages.
        score: (model, rows, targets, their weights or None) ↦ the score.
        l1: (λ, rows, targets, seed) ↦ the L1 model with the same objective for one output; its number of rows counts.
        unselective: the number of rows ↦ the model that reads all features that it is given, with a small ridge.
    """

    measure: str
    peer: str
    every: str
    model: type
    searching: type
    kinds: Callable[[Numbers], Numbers]
    needed: Callable[[Numbers], list[Any]]
    needing: Callable[[Any], str]
    score: Callable[[Any, Numbers, Numbers, Numbers | None], float]
    l1: Callable[[float, int, Numbers, int], Any]
    unselective: Callable[[int], Any]


def fit_rows(model: Any, x: Numbers, y: Numbers, weights: Numbers | None = None, groups: Numbers | None = None) -> Any:
    """Fit a model, or all steps of a pipeline, to rows with the weights and groups that it takes.

    The length of a training is not an option of a selection, and its models are judged on other rows.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the training of the network ended too early", ConvergenceWarning)
        return model.fit(x, y, **_arguments(model, {"sample_weight": weights, "groups": groups}))


def _arguments(model: Any, given: Mapping[str, Numbers | None]) -> dict[str, Numbers]:
    """Return the arguments of fit that are given, for each step by its name, also of pipelines in pipelines."""
    if isinstance(model, Pipeline):
        named = ((step, _arguments(part, given)) for step, part in model.steps)
        return {f"{step}__{name}": value for step, own in named for name, value in own.items()}
    return {name: own for name, own in given.items() if own is not None and has_fit_parameter(model, name)}


def _own_score(model: Any, x: Numbers, y: Numbers, weights: Numbers | None) -> float:
    return float(model.score(x, y, sample_weight=weights))


def _concordance(model: Any, x: Numbers, y: Numbers, weights: Numbers | None) -> float:
    return concordance_index(y[:, 1], y[:, 0] > 0, model.predict(x), weights, otherwise=0.5)


def _l1_logistic(lam: float, rows: int, y: Numbers, seed: int) -> LogisticRegression:
    is_binary = len(np.unique(y)) == 2
    solver = {"solver": "liblinear"} if is_binary else {"solver": "saga", "tol": 1e-3, "max_iter": 200}
    return LogisticRegression(l1_ratio=1.0, C=1 / (lam * rows), random_state=seed, **solver)


CLASSES = Task(
    measure="accuracy",
    peer="L1 logistic regression of scikit-learn",
    every="logistic regression of scikit-learn",
    model=SparseClassifier,
    searching=SparseClassifierCV,
    kinds=lambda y: y,
    needed=lambda kinds: np.unique(kinds).tolist(),
    needing=lambda kind: f" of the class {str(kind)!r}",
    score=_own_score,
    l1=_l1_logistic,
    unselective=lambda rows: LogisticRegression(max_iter=1000),
)
NUMBERS = Task(
    measure="R²",
    peer="the lasso of scikit-learn",
    every="ridge regression of scikit-learn",
    model=SparseRegressor,
    searching=SparseRegressorCV,
    kinds=lambda y: np.zeros(len(y), dtype=int),
    needed=lambda kinds: [0],
    needing=lambda kind: "",
    score=_own_score,
    l1=lambda lam, rows, y, seed: Lasso(lam, max_iter=10_000),
    unselective=lambda rows: RidgeCV(np.geomspace(1e-2, 1e4, 13)),
)
# scikit-learn has no models of survival; for linear models under L1, SparseCox finds those of scikit-survival
SURVIVAL = Task(
    measure="concordance",
    peer="the linear Cox model under L1",
    every="the linear Cox model with a ridge",
    model=SparseCox,
    searching=SparseCoxCV,
    kinds=lambda y: y[:, 0].astype(int),
    needed=lambda kinds: [1],
    needing=lambda kind: " with an event",
    score=_concordance,
    l1=lambda lam, rows, y, seed: SparseCox(lam, hidden=(), points=1, tol=CLOSE),
    unselective=lambda rows: SparseCox(1 / rows, hidden=(), points=1, tol=CLOSE, l1_ratio=1e-6),
)
