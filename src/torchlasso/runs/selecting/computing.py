"""Select the features of a table: the choice, its stability, its accuracy, and what was left out beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_selection import SelectFromModel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlasso.estimators import FeatureSelector, StabilitySelection
from torchlasso.estimators.points import Numbers
from torchlasso.kept_results import call_kept
from torchlasso.runs.selecting.candidates import Candidates
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import Partner, RankedFeature, Selection
from torchlasso.runs.selecting.scoring import Splits, l1_scored, point, rising, scored
from torchlasso.runs.selecting.tasks import CLASSES, CLOSE, fit_rows

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


class Searched(NamedTuple):
    """The search for λ by cross-validation: the attributes of an estimator with these names, and an underscore."""

    lams: Numbers
    scores: Numbers
    features: Numbers
    lam: float
    support: Numbers
    feature_importances: Numbers


class ChosenModel(NamedTuple):
    """A model of all rows: the attributes of an estimator with these names, and an underscore."""

    lam: float
    support: Numbers
    feature_importances: Numbers


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
        options = {"lams": LAMS, "cv": splits, "rule": "one-se", "relaxed": True}
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
    searched = Searched(*_kept_fit(models.searching(splits), table, Searched._fields))
    path = zip(searched.features[::-1], searched.scores[::-1], strict=True)
    curve = rising(point(float(features.mean()), scores) for features, scores in path)
    one_se = searched.scores[np.searchsorted(searched.lams, searched.lam)]
    say(f"{2 * options.pairs} halves of the rows: how often each feature is selected")
    frequencies, support, lams = _chosen(models, searched)
    number = int(support.sum())
    say(f"the same folds: all features, the chosen number of them, and {table.task.peer}")
    lams_of_l1 = searched.lams[::-EACH].tolist()
    unselective = table.task.unselective(models.rows)
    l1 = l1_scored([models.l1(lam) for lam in lams_of_l1], unselective, table, splits)
    enough = next((lam for lam, each in zip(lams_of_l1, l1, strict=True) if each.features >= number), lams_of_l1[-1])
    compared = [(models.of(number), number), (models.l1_of(number, enough), number)] if number else []
    *at, everything = scored([*compared, (models.everything(), len(support))], table, splits)
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
        l1=rising(l1),
        one_se=point(float(searched.support.sum()), one_se),
        at=at[0] if at else None,
        l1_at=at[1] if at else None,
        everything=everything,
        seconds=time.perf_counter() - start,
        constant_score=_share_of_largest(table) if table.task is CLASSES else None,
        data=table.card,
    )
    return Analysis(selection, frequencies, support)


def _share_of_largest(table: Candidates) -> float:
    """Return the share of the rows of the most frequent class, by their weights."""
    sums = np.bincount(np.unique(table.y, return_inverse=True)[1].reshape(-1), table.weights)
    return float(sums.max() / sums.sum())


def _kept_fit(model: Any, table: Candidates, wanted: tuple[str, ...]) -> Any:
    """Fit a model to all rows, unless this is kept, and return some of its attributes."""
    return call_kept(_fit, model, table.x, table.y, table.weights, table.groups, wanted)


def _fit(
    model: Any, x: Numbers, y: Numbers, weights: Numbers | None, groups: Numbers | None, wanted: tuple[str, ...]
) -> tuple[Any, ...]:
    fitted = fit_rows(model, x, y, weights, groups)
    return tuple(getattr(fitted, f"{name}_") for name in wanted)


def _chosen(models: Models, searched: Searched) -> tuple[Frequencies, Numbers, Numbers]:
    """Return the stability of the features, a mask of the chosen ones, and the largest λ at which each is read."""
    options, table = models.options, models.table
    halving: dict[str, Any] = {"pairs": options.pairs, "random_state": options.seed}
    if options.fdr is not None:
        stable = StabilitySelection(models.sparse(), fdr=options.fdr, **halving)
        stable.fit(table.x, table.y, groups=table.groups, row_weights=table.weights)
        shares = stable.frequencies_
        found = Frequencies(stable.lams_, shares, shares.max(axis=0), stable.q_values_)
        return found, stable.support_, searched.feature_importances
    number = options.features or int(searched.support.sum())
    takes_all = number == table.x.shape[1]
    given = {"lam": float(searched.lams[0])} if takes_all else {"features": number}
    model = ChosenModel(*_kept_fit(models.sparse(**given, points=THRESHOLDS // 2), table, ChosenModel._fields))
    support = np.ones(number, dtype=bool) if takes_all else model.support
    high = float(searched.lams[-1])
    # of linear models λ, of networks the sensitivity to a feature
    largest, least = (10.0, 1e-4) if options.hidden else (1.2 * high, 0.5 * model.lam)
    lams = np.geomspace(largest, least, THRESHOLDS)
    base = models.sparse(lam=model.lam)
    stable = StabilitySelection(base, lams=lams, **halving)
    stable.fit(table.x, table.y, groups=table.groups, row_weights=table.weights)
    nearest = int(np.abs(stable.frequencies_.sum(axis=1) - number).argmin())
    found = Frequencies(stable.lams_, stable.frequencies_, stable.frequencies_[nearest], None)
    return found, support, model.feature_importances


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
