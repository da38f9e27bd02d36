"""The choice of λ by cross-validation along a path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from torchlasso._core.arguments import check_whole
from torchlasso._core.specs import unknown
from torchlasso.engine import engine_of
from torchlasso.estimators.base import SparseEstimator, Table, check_number
from torchlasso.estimators.feature_groups import FeatureGroups
from torchlasso.estimators.models import Fitted, ModelPath
from torchlasso.estimators.points import Numbers

FOLDS = 5
RULES = ("best", "one-se")
# (estimator, table, training rows, held-out rows) ↦ a score; a larger one is better
FoldScorer = Callable[[SparseEstimator, Table, Numbers, Numbers], float]


@dataclass(eq=False, repr=False)
class CrossValidatedStrength(SparseEstimator):
    """An estimator that chooses λ by cross-validation.

    Each fold follows the same λ along a path, as the model for all rows does in the end. The same folds choose between
    MCP and L1, unless a penalty is given.
    """

    _: KW_ONLY
    lams: int | Sequence[float] = 20
    cv: Any = None
    rule: str = "best"
    scoring: Any = None
    n_jobs: int | None = None

    def _check(self) -> None:
        super()._check()
        if isinstance(self.lams, int | np.integer):
            check_whole("lams", self.lams, 2)
        else:
            for lam in self.lams:
                check_number("a value of lams", lam)
            if len(set(self.lams)) < 2:
                raise ValueError(f"lams must have two different values at least; got {list(self.lams)}")
        if self.rule not in RULES:
            raise unknown("rule", self.rule, RULES)

    def _chosen(self, table: Table, groups: FeatureGroups, seed: int) -> tuple[ModelPath, Fitted]:
        """Return the model of the chosen λ; where the penalty is to be chosen, the one of the best score."""
        tried = [self._under(penalty) for penalty in self._penalties]
        paths = [own._path(table, groups, seed) for own in tried]
        given = self.lams
        lams = paths[0].grid(int(given)) if isinstance(given, int | np.integer) else sorted(map(float, given))
        splitter, strata, scorer = self._splitter(table, seed), self._strata(table), tried[0]._scorer()
        folds = [*splitter.split(table.x, table.y if strata is None else strata, table.groups)]
        found = engine_of(self.n_jobs).results(
            _fold,
            [(i, k) for i in range(len(tried)) for k in range(len(folds))],
            lambda key: (tried[key[0]], table, groups, seed, lams, scorer, *folds[key[1]]),
        )
        every = np.reshape([scores for scores, _ in found], (len(tried), len(folds), -1)).swapaxes(1, 2)
        best = int(np.nan_to_num(every.mean(axis=2).max(axis=1), nan=-np.inf).argmax())
        own = found[best * len(folds) : (best + 1) * len(folds)]
        self.penalty_, self.lams_, self.scores_ = tried[best].penalty, np.array(lams), every[best]  # (λ, folds)
        self.features_ = np.stack([features for _, features in own], axis=1)  # (λ, folds)
        path = paths[best]
        return path, path.along(lams[: chosen_by(self.rule, self.scores_) + 1])[-1]

    @property
    def _penalties(self) -> tuple[str, ...]:
        """The penalties that are tried; of equally good ones the first is taken."""
        if self.is_linear:
            return ("l1",)
        return ("mcp", "l1") if self.penalty == "auto" else (self.penalty,)

    def _under(self, penalty: str) -> CrossValidatedStrength:
        """Return a copy with a penalty."""
        own = copy(self)
        own.penalty, own.n_jobs = penalty, None  # n_jobs changes no result, and kept ones do not depend on it
        return own

    def _scorer(self) -> FoldScorer:
        """Return the score of a fold."""
        return held_out_score(self, self.scoring)

    def _splitter(self, table: Table, seed: int) -> Any:
        folds, strata = FOLDS if self.cv is None else self.cv, self._strata(table)
        if table.groups is None or not isinstance(folds, int | np.integer):
            return check_cv(folds, strata, classifier=strata is not None)
        if strata is not None:
            return StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        return GroupKFold(folds)


def held_out_score(estimator: SparseEstimator, scoring: Any) -> FoldScorer:
    """Return the score on held-out rows, given as in scikit-learn; None for the estimator's own."""
    return _HeldOutScore(check_scoring(estimator, scoring=scoring))


@dataclass(frozen=True)
class _HeldOutScore:
    scorer: Callable[..., float]  # (estimator, rows, targets) ↦ a score

    def __call__(self, estimator: SparseEstimator, table: Table, training: Numbers, held_out: Numbers) -> float:
        rows, weights = table.some(held_out), table.targets.weights[held_out].numpy()
        options = {} if (weights == weights[0]).all() else {"sample_weight": weights}
        return self.scorer(estimator, rows.x, rows.y, **options)


def chosen_by(rule: str, scores: Numbers) -> int:
    """Return the row of scores, (λ, folds), that a rule chooses, for rising λ.

    Args:
        rule: ``"best"``: the best mean. ``"one-se"``: the largest λ whose mean is at most one standard error below it
            (Breiman, Friedman, Olshen and Stone 1984).
        scores: of the folds; a larger one is better.

    Examples:
        >>> scores = np.array([[0.8, 1.0], [0.9, 0.86], [0.5, 0.6]])
        >>> chosen_by("best", scores), chosen_by("one-se", scores)
        (0, 1)
    """
    if not np.isfinite(scores).all():
        raise ValueError("the scores of some folds are not finite: they may have too few rows for this scoring")
    means = scores.mean(axis=1)
    best = len(means) - 1 - int(means[::-1].argmax())  # of equal ones the sparsest
    if rule == "best":
        return best
    error = float(scores[best].std(ddof=1)) / scores.shape[1] ** 0.5 if scores.shape[1] > 1 else 0.0
    return int(np.flatnonzero(means >= means[best] - error)[-1])


def _fold(
    estimator: SparseEstimator,
    table: Table,
    groups: FeatureGroups,
    seed: int,
    lams: Sequence[float],
    scorer: FoldScorer,
    training: Numbers,
    held_out: Numbers,
) -> tuple[Numbers, Numbers]:
    """Return the scores of one fold for all λ, and the numbers of features."""
    path = estimator._path(table.some(training), groups, seed)
    found = path.along(lams)
    found = [path.relaxed(each) for each in found] if estimator.relaxed else found
    scores = [scorer(_as_fitted(estimator, each), table, training, held_out) for each in found]
    features = [each.point.features for each in found]
    ended = len(lams) - len(found)  # no feature is left: a larger λ leaves none either
    return np.array(scores + scores[-1:] * ended), np.array(features + features[-1:] * ended)


def _as_fitted(estimator: SparseEstimator, found: Fitted) -> SparseEstimator:
    """Return an estimator with a model of the path."""
    each = copy(estimator)
    each.__dict__.pop("feature_names_in_", None)  # rows of folds have no names
    each._model, each.path_ = found.model, [found.point]
    return each
