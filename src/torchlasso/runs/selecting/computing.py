"""Select the features of a table: the choice, its stability, its accuracy, and what was left out beside it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectFromModel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlasso.estimators import FeatureSelector, StabilitySelection
from torchlasso.estimators.points import Numbers
from torchlasso.runs.selecting.candidates import Candidates
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import CurvePoint, Partner, RankedFeature, Selection
from torchlasso.runs.selecting.tasks import CLOSE, fit_weighted

Splits = Sequence[tuple[Numbers, Numbers]]
LAMS, THRESHOLDS = 25, 60  # values of λ of the cross-validation, and of the halves
EACH = 3  # scikit-learn's model is trained for every third λ
ALIKE, PARTNERS = 0.9, 10  # the least correlation of a partner, and the most of a feature
OTHERS = 30  # the most features of the list of those that were not chosen


@dataclass(frozen=True)
class Frequencies:
    """The stability of features over halves of the rows.

    Attributes:
        lams: the thresholds, falling.
        shares: of the halves that select each feature, (thresholds, features).
        each: of each feature, the share by which it is ranked.
        q_values: those of each feature, or None.
    """

    lams: Numbers
    shares: Numbers
    each: Numbers
    q_values: Numbers | None


@dataclass(frozen=True)
class Analysis:
    """A selection, and the numbers that only its page needs."""

    selection: Selection
    frequencies: Frequencies
    support: Numbers


class Models:
    """The models of the options for the targets of a table; all of them scale columns by their training rows."""

    def __init__(self, table: Candidates, options: SelectOptions) -> None:
        self.table, self.task, self.options = table, table.task, options
        self.rows = round(len(table.y) * (options.folds - 1) / options.folds)  # of the training rows of a fold
        self.common: dict[str, Any] = {
            "hidden": options.hidden,
            "random_state": options.seed,
            "tol": CLOSE,
            "standardize": True,
        }

    def sparse(self, **more: Any) -> Any:
        """Return a model with a given λ, or a number of features."""
        return self.task.model(**{**self.common, **more})

    def searching(self, splits: Splits) -> Any:
        """Return a model whose λ is found by cross-validation, each point trained on without the penalty."""
        options = {"lams": LAMS, "cv": splits, "rule": "one-se", "n_jobs": self.options.jobs, "relaxed": True}
        return self.task.searching(**self.common, **options)

    def of(self, number: int) -> Any:
        """Return a model of so many features, which are selected anew; its last fit is without the penalty."""
        if number == self.table.x.shape[1]:
            return self.everything()
        sparse = self.sparse(features=number, points=1)
        return (
            sparse
            if self.options.hidden
            else make_pipeline(FeatureSelector(sparse, features=number), self.everything())
        )

    def l1(self, lam: float) -> Any:
        """Return the L1 model to compare with."""
        return self.task.l1(lam, self.rows, self.table.y, self.options.seed)

    def l1_of(self, number: int, lam: float) -> Any:
        """Return a model of the features with the largest weights in the L1 model for λ."""
        chosen = SelectFromModel(self.l1(lam), threshold=-np.inf, max_features=number)
        return make_pipeline(StandardScaler(), chosen, self.task.unselective(self.rows))

    def everything(self) -> Any:
        """Return a model of all features that it is given."""
        return make_pipeline(StandardScaler(), self.task.unselective(self.rows))


def select_features(table: Candidates, options: SelectOptions, say: Callable[[str], None]) -> Analysis:
    """Select the features of a table.

    Args:
        table: its candidates.
        options: the number of features, or the rate of false ones.
        say: prints a line about the next step.

    Raises:
        ValueError: no λ leaves so many features, or the rows cannot be divided.
    """
    start, models = time.perf_counter(), Models(table, options)
    splits = table.folds(options.folds, options.seed)
    say(f"{len(splits)} folds: {table.task.measure} over the number of features")
    searched = models.searching(splits).fit(table.x, table.y, sample_weight=table.weights)
    path = zip(searched.features_[::-1], searched.scores_[::-1], strict=True)
    curve = _rising(_point(float(features.mean()), scores) for features, scores in path)
    one_se = searched.scores_[np.searchsorted(searched.lams_, searched.lam_)]
    say(f"{2 * options.pairs} halves of the rows: how often each feature is selected")
    frequencies, support, lams = _chosen(models, searched)
    number = int(support.sum())
    say(f"the same folds: all features, the chosen number of them, and {table.task.peer}")
    at = _scored(models.of(number), table, splits, number) if number else None
    l1 = [_l1_scored(models, lam, table, splits) for lam in searched.lams_[::-EACH]]
    lams_of_l1 = searched.lams_[::-EACH].tolist()
    enough = next((lam for lam, point in zip(lams_of_l1, l1, strict=True) if point.features >= number), lams_of_l1[-1])
    order = _order(support, frequencies, lams)
    partners = _partners(table, support)
    ranked = tuple(
        RankedFeature(
            rank,
            table.names[i],
            float(frequencies.each[i]),
            None if frequencies.q_values is None else float(frequencies.q_values[i]),
            float(lams[i]),
            partners[i],
        )
        for rank, i in enumerate((i for i in order if support[i]), 1)
    )
    others = [i for i in order if not support[i] and frequencies.each[i] > 0][:OTHERS]
    selection = Selection(
        measure=table.task.measure,
        peer=table.task.peer,
        every=table.task.every,
        rows=len(table.y),
        groups=None if table.groups is None else len(np.unique(table.groups)),
        columns=table.columns,
        constant=table.constant,
        copies=table.copies,
        chosen=ranked,
        others=tuple((table.names[i], float(frequencies.each[i])) for i in others),
        halves=2 * options.pairs,
        folds=len(splits),
        curve=curve,
        l1=_rising(l1),
        one_se=_point(float(searched.support_.sum()), one_se),
        at=at,
        l1_at=_scored(models.l1_of(number, enough), table, splits, number) if number else None,
        everything=_scored(models.everything(), table, splits, len(support)),
        seconds=time.perf_counter() - start,
    )
    return Analysis(selection, frequencies, support)


def _chosen(models: Models, searched: Any) -> tuple[Frequencies, Numbers, Numbers]:
    """Return the stability of the features, a mask of the chosen ones, and the largest λ at which each is read."""
    options, table = models.options, models.table
    halving: dict[str, Any] = {"pairs": options.pairs, "random_state": options.seed, "n_jobs": options.jobs}
    if options.fdr is not None:
        stable = StabilitySelection(models.sparse(), fdr=options.fdr, **halving)
        stable.fit(table.x, table.y, sample_weight=table.weights, groups=table.groups)
        shares = stable.frequencies_
        found = Frequencies(stable.lams_, shares, shares.max(axis=0), stable.q_values_)
        importances = searched.feature_importances_
        return found, stable.support_, importances
    number = options.features or int(searched.support_.sum())
    if number == table.x.shape[1]:
        model = models.sparse(lam=float(searched.lams_[0]), points=THRESHOLDS // 2)
        model.fit(table.x, table.y, sample_weight=table.weights)
        support = np.ones(number, dtype=bool)
    else:
        model = models.sparse(features=number, points=THRESHOLDS // 2)
        model.fit(table.x, table.y, sample_weight=table.weights)
        support = model.support_
    high = float(searched.lams_[-1])
    # of linear models λ, of networks the sensitivity to a feature
    largest, least = (10.0, 1e-4) if options.hidden else (1.2 * high, 0.5 * float(model.lam_))
    lams = np.geomspace(largest, least, THRESHOLDS)
    base = models.sparse(lam=model.lam_)
    stable = StabilitySelection(base, lams=lams, **halving)
    stable.fit(table.x, table.y, sample_weight=table.weights, groups=table.groups)
    nearest = int(np.abs(stable.frequencies_.sum(axis=1) - number).argmin())
    found = Frequencies(stable.lams_, stable.frequencies_, stable.frequencies_[nearest], None)
    return found, support, model.feature_importances_


def _rising(points: Iterable[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Return the points of falling λ by their number of features, the last of each number and none without any."""
    found: list[CurvePoint] = []
    for point in points:
        while found and found[-1].features >= point.features:
            found.pop()
        found += [point] if point.features else []
    return tuple(found)


def _point(features: float, scores: Numbers) -> CurvePoint:
    return CurvePoint(features, float(scores.mean()), float(scores.std(ddof=1)) / len(scores) ** 0.5)


def _scored(model: Any, table: Candidates, splits: Splits, features: int) -> CurvePoint:
    """Train a model of so many features on each fold, and score it on the other rows."""
    scores = []
    for training, held_out in splits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = fit_weighted(clone(model), table.x[training], table.y[training], table.own(training))
        scores.append(table.task.score(fitted, table.x[held_out], table.y[held_out], table.own(held_out)))
    return _point(features, np.array(scores))


def _l1_scored(models: Models, lam: float, table: Candidates, splits: Splits) -> CurvePoint:
    """Score the L1 model for λ, refitted on the features that it reads; without any if a fold reads none."""
    scores, counts = [], []
    for training, held_out in splits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            weights = table.own(training)
            scale = StandardScaler().fit(table.x[training], sample_weight=weights)
            x, y = scale.transform(table.x[training]), table.y[training]
            read = (np.atleast_2d(fit_weighted(models.l1(lam), x, y, weights).coef_) != 0).any(axis=0)
            if not read.any():
                return CurvePoint(0.0, 0.0, 0.0)
            fitted = fit_weighted(table.task.unselective(models.rows), x[:, read], y, weights)
        rows = scale.transform(table.x[held_out])[:, read]
        scores.append(table.task.score(fitted, rows, table.y[held_out], table.own(held_out)))
        counts.append(int(read.sum()))
    return _point(float(np.mean(counts)), np.array(scores))


def _order(support: Numbers, frequencies: Frequencies, lams: Numbers) -> list[int]:
    """Return the features in order: the chosen ones first, then by q-value, frequency, and λ."""
    q_values = np.zeros(len(support)) if frequencies.q_values is None else frequencies.q_values
    found: list[int] = np.lexsort((-lams, -frequencies.each, q_values, ~support)).tolist()
    return found


def _partners(table: Candidates, support: Numbers) -> dict[int, tuple[Partner, ...]]:
    """Return, for each chosen feature, the columns left out that are correlated with it."""
    chosen, left = np.flatnonzero(support), np.flatnonzero(~support)
    shares = np.full(len(table.x), 1 / len(table.x)) if table.weights is None else table.weights / len(table.x)
    found: dict[int, tuple[Partner, ...]] = {}
    for i in chosen.tolist():
        copies = [Partner(name, 1.0) for name, of in table.copies.items() if of == table.names[i]]
        r = table.x[:, left].T @ (shares * table.x[:, i]) if len(left) else np.zeros(0)
        near = np.argsort(-np.abs(r))[:PARTNERS]
        alike = [Partner(table.names[left[j]], float(r[j])) for j in near if abs(r[j]) > ALIKE]
        found[i] = (*copies, *alike)
    return found
