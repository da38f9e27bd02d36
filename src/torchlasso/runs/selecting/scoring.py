"""Scores of models on rows that they were not trained on, each fold by a worker of the engine."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from torchlasso.engine import engine_of
from torchlasso.estimators.points import Numbers
from torchlasso.runs.selecting.candidates import Candidates
from torchlasso.runs.selecting.record import CurvePoint
from torchlasso.runs.selecting.tasks import fit_rows

Splits = Sequence[tuple[Numbers, Numbers]]


def scored(models: Sequence[tuple[Any, int]], table: Candidates, splits: Splits) -> list[CurvePoint]:
    """Train each model on the training rows of each split, and score it on the other rows.

    Args:
        models: each with the number of features that it reads.
        table: its rows.
        splits: training and held-out rows.
    """
    keys = [(i, k) for i in range(len(models)) for k in range(len(splits))]
    found = engine_of(None).results(_score, keys, lambda key: (models[key[0]][0], table, *splits[key[1]]))
    scores = np.reshape(found, (len(models), len(splits)))
    return [point(features, own) for (_, features), own in zip(models, scores, strict=True)]


def l1_scored(models: Sequence[Any], refitted: Any, table: Candidates, splits: Splits) -> list[CurvePoint]:
    """Score L1 models, refitted on the features that they read; without any if one of a split reads none.

    Args:
        models: the L1 models.
        refitted: the model that is fitted to the features that they read.
        table: its rows.
        splits: training and held-out rows.
    """
    keys = [(i, k) for i in range(len(models)) for k in range(len(splits))]
    arguments = lambda key: (models[key[0]], refitted, table, *splits[key[1]])  # noqa: E731
    found = np.reshape(engine_of(None).results(_l1_score, keys, arguments), (len(models), len(splits), 2))
    return [
        point(float(own[:, 1].mean()), own[:, 0]) if own[:, 1].all() else CurvePoint(0.0, 0.0, 0.0) for own in found
    ]


def point(features: float, scores: Numbers) -> CurvePoint:
    """Return the mean of scores with its standard error."""
    return CurvePoint(features, float(scores.mean()), float(scores.std(ddof=1)) / len(scores) ** 0.5)


def rising(points: Iterable[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Return the points of falling λ by their number of features, the last of each number and none without any."""
    found: list[CurvePoint] = []
    for each in points:
        while found and found[-1].features >= each.features:
            found.pop()
        found += [each] if each.features else []
    return tuple(found)


def _score(model: Any, table: Candidates, training: Numbers, held_out: Numbers) -> float:
    with warnings.catch_warnings(), threadpool_limits(1):  # the same bits wherever it runs
        warnings.simplefilter("ignore", ConvergenceWarning)
        x, y, groups = table.x[training], table.y[training], table.groups_of(training)
        fitted = fit_rows(clone(model), x, y, table.own(training), groups)
        return float(table.task.score(fitted, table.x[held_out], table.y[held_out], table.own(held_out)))


def _l1_score(model: Any, refitted: Any, table: Candidates, training: Numbers, held_out: Numbers) -> tuple[float, int]:
    """Return the score, and the number of features that the L1 model reads."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = table.own(training)
        scale = StandardScaler().fit(table.x[training], sample_weight=weights)
        x, y = scale.transform(table.x[training]), table.y[training]
        read = (np.atleast_2d(fit_rows(clone(model), x, y, weights).coef_) != 0).any(axis=0)
        if not read.any():
            return 0.0, 0
        fitted = fit_rows(clone(refitted), x[:, read], y, weights)
        rows = scale.transform(table.x[held_out])[:, read]
        score = table.task.score(fitted, rows, table.y[held_out], table.own(held_out))
    return float(score), int(read.sum())
