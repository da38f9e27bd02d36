"""The model of Cox: its loss against the formula, its linear solution against other solvers, and bad input."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor

from torchlasso.estimators import FeatureSelector, SparseCox, SparseCoxCV, StabilitySelection
from torchlasso.estimators.concordance import concordance_index
from torchlasso.estimators.subsamples import complementary_pairs
from torchlasso.training.survival import TIES, SurvivalTargets


def patients(n: int = 150, p: int = 12, *, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike means and scales, of which two matter, and events and times."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p)) * rng.uniform(0.5, 2, p) + 10 * rng.normal(size=p)
    centred = (x - x.mean(axis=0)) / x.std(axis=0)
    time = rng.exponential(np.exp(centred[:, 7] - centred[:, 2]))
    event = time < 1.5
    time = time.clip(max=1.5)
    return x, np.stack([event, np.ceil(8 * time) / 8 if tied else time], axis=1)


def structured(y: np.ndarray) -> np.ndarray:
    return np.array([(e == 1, t) for e, t in y], dtype=[("event", bool), ("time", float)])


def partial_likelihood(outputs: Tensor, y: np.ndarray, weights: np.ndarray, ties: str) -> Tensor:
    """The loss by its definition, event after event."""
    total, risk = outputs.new_zeros(()), torch.from_numpy(weights) * outputs.exp()
    for time in np.unique(y[y[:, 0] == 1, 1]):
        tied = np.flatnonzero((y[:, 0] == 1) & (y[:, 1] == time))
        at_risk = risk[y[:, 1] >= time].sum()
        for k, i in enumerate(tied):
            left = k / len(tied) * risk[tied].sum() if ties == "efron" else 0.0
            weight = weights[tied].mean() if ties == "efron" else weights[i]
            total = total + weight * torch.log(at_risk - left) - weights[i] * outputs[i]
    return total / len(y)


def targets_of(y: np.ndarray, weights: np.ndarray, ties: str) -> SurvivalTargets:
    return SurvivalTargets(*map(torch.from_numpy, (y[:, 1], y[:, 0] > 0, weights)), ties)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_and_its_derivatives(ties: str, tied: bool) -> None:
    _, y = patients(40, tied=tied)
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.2, 2, len(y))
    outputs = torch.from_numpy(rng.normal(size=(len(y), 1))).requires_grad_()
    targets = targets_of(y, weights, ties)
    wanted = partial_likelihood(outputs[:, 0], y, weights, ties)
    torch.testing.assert_close(targets.value(outputs), wanted)
    [slope] = torch.autograd.grad(wanted, outputs)
    torch.testing.assert_close(targets.slope(outputs), slope)
    flat = outputs.detach()[:, 0]
    hessian = torch.autograd.functional.hessian(lambda z: partial_likelihood(z, y, weights, ties), flat)
    curvature = targets.curvature(outputs.detach())
    x = torch.from_numpy(rng.normal(size=(len(y), 3)))
    torch.testing.assert_close(curvature.between(x), x.T @ hessian @ x)
    torch.testing.assert_close(curvature.times(x[:, :1]), hessian @ x[:, :1])


@pytest.mark.parametrize("ties", TIES)
def test_outputs_far_apart_leave_no_nan(ties: str) -> None:
    _, y = patients(40, tied=True)
    outputs = torch.linspace(-2000, 2000, len(y), dtype=torch.float64)[:, None].requires_grad_()
    targets = targets_of(y, np.ones(len(y)), ties)
    [slope] = torch.autograd.grad(targets.value(outputs), outputs)
    assert slope.isfinite().all()
    torch.testing.assert_close(targets.slope(outputs.detach()), slope)
    assert targets.curvature(outputs.detach()).times(outputs.detach()).isfinite().all()


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("lam", [0.1, 0.02])
def test_the_linear_model_is_the_minimum(ties: str, lam: float) -> None:
    """Against L-BFGS-B on the parts of the weights above and below zero."""
    x, y = patients(tied=True)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(y))
    weights /= weights.mean()
    found = SparseCox(lam, hidden=(), ties=ties, points=1).fit(x, y, weights)
    features = torch.from_numpy(x - x.mean(axis=0))

    def objective(parts: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(parts).requires_grad_()
        above, below = both.chunk(2)
        value = partial_likelihood(features @ (above - below), y, weights, ties) + lam * both.sum()
        value.backward()
        return value.item(), both.grad.numpy()

    start = np.full(2 * x.shape[1], 0.1)
    solved = minimize(objective, start, jac=True, bounds=[(0, None)] * len(start), options={"ftol": 0, "gtol": 1e-10})
    above, below = np.split(solved.x, 2)
    assert 0 < found.support_.sum() < x.shape[1]
    np.testing.assert_allclose(found.coef_, above - below, atol=1e-6)
    np.testing.assert_allclose(found.predict(x), x @ found.coef_, atol=1e-8)


@pytest.mark.parametrize("lam", [0.1, 0.02])
def test_coxnet(lam: float) -> None:
    linear_model = pytest.importorskip("sksurv.linear_model", reason="scikit-survival is not installed")
    x, y = patients(tied=True)
    survived = structured(y)
    theirs = linear_model.CoxnetSurvivalAnalysis(alphas=[lam], l1_ratio=1.0, tol=1e-14, max_iter=1_000_000)
    theirs.fit(x, survived)
    ours = SparseCox(lam, hidden=(), points=1).fit(x, survived)
    np.testing.assert_allclose(ours.coef_, theirs.coef_[:, 0], atol=1e-6)
    assert ours.score(x, survived) == pytest.approx(theirs.score(x, survived), abs=1e-12)


def test_cross_validation_is_the_one_of_coxnet() -> None:
    """Folds of their own path and their own score give the same table of scores."""
    linear_model = pytest.importorskip("sksurv.linear_model", reason="scikit-survival is not installed")
    x, y = patients(tied=True)
    survived, lams = structured(y), [0.02, 0.05, 0.1, 0.2]
    ours = SparseCoxCV(hidden=(), lams=lams, cv=KFold(3)).fit(x, survived)
    for fold, (training, held_out) in enumerate(KFold(3).split(x)):
        theirs = linear_model.CoxnetSurvivalAnalysis(alphas=lams[::-1], l1_ratio=1.0, tol=1e-14, max_iter=1_000_000)
        theirs.fit(x[training], survived[training])
        for row, coef in enumerate(theirs.coef_.T[::-1]):
            index = concordance_by_pairs(y[held_out, 1], y[held_out, 0] > 0, x[held_out] @ coef)
            assert ours.scores_[row, fold] == pytest.approx(index, abs=1e-9)


def test_a_row_of_weight_two_is_as_two_rows() -> None:
    x, y = patients(tied=True)
    weights = np.where(np.arange(len(x)) < 50, 2.0, np.where(np.arange(len(x)) < 60, 0.0, 1.0))
    twice = np.repeat(np.arange(len(x)), weights.astype(int))
    weighted = SparseCox(0.05, hidden=(), points=1).fit(x, y, weights)
    repeated = SparseCox(0.05, hidden=(), points=1).fit(x[twice], y[twice])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-8)


def concordance_by_pairs(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, weights: np.ndarray | None = None
) -> float:
    good, every = 0.0, 0.0
    weights = np.ones(len(time)) if weights is None else weights
    for i, j in itertools.permutations(range(len(time)), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            every += weights[i] * weights[j]
            good += weights[i] * weights[j] * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    return good / every


def test_the_concordance_index_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 3, 7, 30, 33):
        time, event, risk = rng.integers(1, 8, n), rng.random(n) < 0.6, rng.integers(0, 6, n) / 7
        event[time.argmin()] = True
        time[time.argmax()] += 1
        assert concordance_index(time, event, risk) == pytest.approx(concordance_by_pairs(time, event, risk))
        weights = rng.uniform(0.1, 2, n)
        expected = concordance_by_pairs(time, event, risk, weights)
        assert concordance_index(time, event, risk, weights) == pytest.approx(expected)


def test_a_network_finds_what_no_linear_model_can() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 10)).astype(np.float32)
    time = rng.exponential(np.exp(-2 * np.abs(x[:, 4])))
    y = np.stack([time < 1, time.clip(max=1)], axis=1)
    model = SparseCox(features=1, epochs=60, random_state=0).fit(x[:400], y[:400])
    assert model.support_.nonzero()[0].tolist() == [4]
    assert model.score(x[400:], y[400:]) > 0.7
    assert SparseCox(0.01, hidden=()).fit(x[:400], y[:400]).score(x[400:], y[400:]) < 0.6


@pytest.mark.parametrize("ties", TIES)
def test_folds_are_scored_by_the_order_of_their_rows(ties: str) -> None:
    x, y = patients(tied=True)
    lams, folds = [0.02, 0.1], StratifiedKFold(4)
    options = {"hidden": (), "points": 1, "ties": ties}
    weights = np.random.default_rng(4).uniform(0.5, 2, len(y)) * (np.arange(len(y)) % 10 > 0)
    weights /= weights.mean()
    found = SparseCoxCV(lams=lams, cv=4, **options).fit(x, y, weights)
    likelihood = SparseCoxCV(lams=lams, cv=4, scoring="partial-likelihood", **options).fit(x, y, weights)
    for fold, (training, held_out) in enumerate(folds.split(x, y[:, 0])):
        for row, lam in enumerate(lams):
            model = SparseCox(lam, **options).fit(x[training], y[training], weights[training])
            risk, (event, time) = model.predict(x), y.T
            own = concordance_by_pairs(time[held_out], event[held_out] > 0, risk[held_out], weights[held_out])
            assert found.scores_[row, fold] == pytest.approx(own, abs=1e-9)
            every, before = (
                len(rows) * partial_likelihood(torch.from_numpy(risk[rows]), y[rows], weights[rows], ties).item()
                for rows in (np.flatnonzero(weights), training[weights[training] > 0])
            )
            gained = (before - every) / (weights * event)[held_out].sum()
            assert likelihood.scores_[row, fold] == pytest.approx(gained, abs=1e-9)
    assert found.lam_ in lams
    assert found.features_.shape == (2, 4)


@pytest.mark.parametrize("scoring", [None, "concordance", "partial-likelihood"])
def test_cross_validation_finds_the_features_that_matter(scoring: str | None) -> None:
    x, y = patients(200)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    options = {"hidden": (), "scoring": scoring, "lams": 6, "cv": 3, "tol": 1e-5}
    model = SparseCoxCV(rule="one-se", **options).fit(x, y, groups=np.arange(200) // 4)
    assert {2, 7} <= set(model.support_.nonzero()[0].tolist())
    assert model.support_.sum() < 12
    assert model.score(x, y) > 0.7


@pytest.mark.slow
def test_selectors_of_survival() -> None:
    """An event and a time in two fields are survival without a word; in two columns, for a model of it."""
    x, y = patients(150)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    linear = SparseCox(hidden=(), tol=1e-4)
    for targets in (y, structured(y)):
        assert FeatureSelector(linear, features=2).fit(x, targets).get_support(indices=True).tolist() == [2, 7]
        one_se = FeatureSelector(linear, lams=4, cv=2).fit(x, targets)
        assert isinstance(one_se.estimator_, SparseCoxCV)
        assert {2, 7} <= set(one_se.get_support(indices=True))
        stable = StabilitySelection(linear, lams=[0.5, 0.3, 0.2], pairs=3, random_state=0).fit(x, targets)
        assert stable.get_support(indices=True).tolist() == [2, 7]
    by_rate = FeatureSelector(linear, fdr=0.1, pairs=4, random_state=0).fit(x, structured(y))
    assert by_rate.get_support(indices=True).tolist() == [2, 7]
    network = StabilitySelection(pairs=2, random_state=0).fit(x, structured(y))
    assert isinstance(network.estimator_, SparseCox)
    assert set(np.argsort(-network.scores_)[:2]) == {2, 7}
    short = SparseCox(features=2, hidden=(4,), epochs=2, points=1)
    assert isinstance(FeatureSelector(short, features=2).fit(x, structured(y)).estimator_, SparseCox)


def test_a_network_has_no_constant_that_the_likelihood_would_ignore() -> None:
    network = SparseCox(hidden=(4,), epochs=1, points=1, random_state=0).fit(*patients())._model.inside.model.network
    assert [name for name, _ in network.named_parameters()] == [
        "skip.weight",
        "layers.0.weight",
        "layers.0.bias",
        "layers.2.weight",
    ]


def test_each_half_has_its_share_of_the_events() -> None:
    event = np.arange(60) < 6
    for half in complementary_pairs(np.arange(60), 20, np.random.RandomState(0), events=event):
        assert event[half].sum() == 3
    one = np.stack([np.arange(60) == 3, np.arange(1.0, 61)], axis=1)
    with pytest.raises(ValueError, match=r"^each half of the rows needs an event; in 100 draws one half had none$"):
        StabilitySelection(SparseCox(hidden=()), pairs=1).fit(np.eye(60), one)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator",
    [
        SparseCox(hidden=(), points=1),
        SparseCox(0.001, hidden=(4,), epochs=4, lr=0.05, points=1),  # more would magnify rounding
        SparseCoxCV(hidden=(), points=1, lams=[0.2, 0.4], cv=2, tol=1e-6),
        StabilitySelection(SparseCox(hidden=(), tol=1e-3), pairs=1, lams=[0.5, 0.3]),
        FeatureSelector(SparseCox(hidden=(), points=1, tol=1e-6), features=1),
    ],
    ids=["linear", "network", "cross-validation", "stability", "selector"],
)
def test_it_follows_the_conventions_of_scikit_learn(estimator: Any) -> None:
    """A target of one column has the times of events."""
    results = check_estimator(estimator, on_fail=None)
    assert [(each["check_name"], each["exception"]) for each in results if each["status"] == "failed"] == []
    assert len(results) > 40


@pytest.mark.slow
def test_it_is_an_estimator() -> None:
    x, y = patients()
    model = clone(SparseCox(0.05, hidden=(), ties="efron"))
    fitted = pickle.loads(pickle.dumps(model.fit(x, y)))
    np.testing.assert_array_equal(fitted.predict(x), model.predict(x))
    search = GridSearchCV(SparseCox(hidden=()), {"lam": [0.2, 0.05]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.7


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[1, 1.0], [0, -2.0], [1, 3.0]]), "times of y must be finite and at least 0, .* got -2"),
        (np.array([[1, 1.0], [0, np.nan], [1, 3.0]]), "times of y must be finite .* got nan"),
        (np.array([[2, 1.0], [0, 2.0], [1, 3.0]]), "events of y must be 0 or 1, .* got 2"),
        (np.array([[0, 1.0], [0, 2.0], [0, 3.0]]), "y has no event"),
        (np.ones((3, 4)), r"shape \(n, 2\), .* got \(3, 4\)"),
        (np.array([["yes", "1"], ["no", "2"], ["no", "3"]]), "y must be numbers"),
        (np.array([[1, 1.0], [0, 2.0]]), "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
    ],
)
def test_bad_input(y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseCox(hidden=()).fit(np.eye(3), y)


def test_too_few_events_for_the_folds() -> None:
    few = np.stack([np.arange(30) < 3, np.arange(1.0, 31)], axis=1)
    with pytest.raises(ValueError, match=r"^each of the 5 folds needs an event, and y has 3; give a smaller cv$"):
        SparseCoxCV(hidden=()).fit(np.eye(30), few)
    with pytest.raises(ValueError, match="unknown scoring 'accuracy'"):
        SparseCoxCV(hidden=(), scoring="accuracy").fit(np.eye(30), few)


def test_an_unknown_form_of_ties() -> None:
    with pytest.raises(ValueError, match="unknown form of ties 'exact'"):
        SparseCox(hidden=(), ties="exact").fit(np.eye(3), [1.0, 2.0, 3.0])
