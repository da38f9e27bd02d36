"""Stability selection: halves, paths, bounds, q-values, and its conventions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from tests.support.tasks import KilledOnce
from torchlasso.estimators import SparseClassifier, SparseCox, SparseRegressor, StabilitySelection
from torchlasso.estimators.error_control import null_bound, q_values, stability_paths
from torchlasso.estimators.subsamples import complementary_pairs

LINEAR, CLASSES = SparseRegressor(hidden=(), tol=1e-5), SparseClassifier(hidden=(), tol=1e-4)


def table(n: int = 120, p: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which 3 and 7 matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, x[:, 3] - x[:, 7] + rng.normal(size=n)


@pytest.mark.slow
@pytest.mark.parametrize("base", [LINEAR, CLASSES], ids=["numbers", "classes"])
@pytest.mark.filterwarnings("ignore")
def test_it_follows_the_conventions_of_scikit_learn(base: Any) -> None:
    results = check_estimator(StabilitySelection(base, pairs=1, lams=[0.5, 0.3]), on_fail=None)
    assert [(each["check_name"], each["exception"]) for each in results if each["status"] == "failed"] == []
    assert len(results) > 40


@pytest.mark.parametrize("n", [4, 9, 50])
def test_the_halves_of_a_pair_have_no_common_row(n: int) -> None:
    halves = complementary_pairs(np.arange(n), 20, np.random.RandomState(0))
    assert len(halves) == 40
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert len(first) == len(second) == n // 2
        assert not set(first) & set(second)
    assert set(np.concatenate(halves)) == set(range(n))


def test_rows_of_one_group_stay_in_one_half() -> None:
    groups = np.random.default_rng(0).integers(0, 11, 60)
    for half in complementary_pairs(np.unique(groups, return_inverse=True)[1], 10, np.random.RandomState(0)):
        inside = np.isin(np.arange(60), half)
        assert all(len(set(inside[groups == group])) == 1 for group in set(groups))


@pytest.mark.parametrize("counts", [(2, 2), (40, 3), (7, 5, 2)])
def test_classes_are_divided_as_evenly_as_they_can_be(counts: tuple[int, ...]) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    for half in complementary_pairs(np.arange(len(classes)), 20, np.random.RandomState(0), classes):
        for number, count in enumerate(counts):
            assert abs((classes[half] == number).sum() - count / 2) <= 1


def test_a_half_without_a_second_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^each half of the rows needs two classes; in 100 draws one half had only"):
        StabilitySelection(SparseClassifier(hidden=()), pairs=1).fit(*table()[:1], [0] * 119 + [1])


def test_frequencies_are_the_shares_of_halves_in_which_a_lasso_reads_a_feature() -> None:
    x, y = table()
    lams = np.array([0.8, 0.4, 0.2, 0.1])
    selector = StabilitySelection(LINEAR, lams=lams, pairs=5, random_state=3).fit(x, y)
    expected = np.zeros((4, 20))
    for half in complementary_pairs(np.arange(120), 5, np.random.RandomState(3)):
        live = [Lasso(alpha=lam, tol=1e-10).fit(x[half], y[half]).coef_ != 0 for lam in lams]
        expected += np.logical_or.accumulate(live) / 10
    np.testing.assert_allclose(selector.frequencies_, expected)
    np.testing.assert_allclose(selector.scores_, ((2 * expected - 1).clip(0) ** 3).mean(axis=0))
    counts = expected.sum(axis=1)
    np.testing.assert_allclose(selector.efp_.min(), null_bound(counts, 20, 5, 3).mean() / selector.scores_.max())
    largest = expected[-1].max()
    np.testing.assert_allclose(selector.expected_false_.min(), min(20, counts[-1] ** 2 / 20 / (2 * largest - 1)))


def test_weights_are_those_of_the_models_of_the_halves() -> None:
    x, y = table()
    weights, lams = np.random.default_rng(5).uniform(0.1, 3, 120), np.array([0.8, 0.4, 0.2])
    selector = StabilitySelection(LINEAR, lams=lams, pairs=3, random_state=3).fit(x, y, row_weights=7 * weights)
    expected = np.zeros((3, 20))
    for half in complementary_pairs(np.arange(120), 3, np.random.RandomState(3)):
        lassos = [Lasso(alpha=lam, tol=1e-10).fit(x[half], y[half], sample_weight=weights[half]) for lam in lams]
        expected += np.logical_or.accumulate([lasso.coef_ != 0 for lasso in lassos]) / 6
    np.testing.assert_allclose(selector.frequencies_, expected)
    plain = StabilitySelection(LINEAR, lams=lams, pairs=3, random_state=3).fit(x, y)
    assert not np.array_equal(plain.frequencies_, expected)


@pytest.mark.parametrize(
    "base",
    [
        LINEAR,
        SparseRegressor(lam=0.05, penalty="l1", hidden=(4,), epochs=20, batch_size=1000),
        SparseRegressor(lam=0.05, penalty="l1", hidden=(4, 4), epochs=20, batch_size=1000),
        ExtraTreesRegressor(10),
        None,
    ],
    ids=["linear", "one network", "networks one by one", "trees", "default"],
)
def test_a_row_of_weight_zero_is_none_and_equal_weights_change_nothing(base: Any) -> None:
    x, y = table()
    weights = np.where(np.arange(120) % 3, 2.0, 0.0)
    kept = weights > 0
    options = {"pairs": 2, "random_state": 0}
    groups = np.arange(120) // 2
    found = StabilitySelection(base, **options).fit(x, y, groups=groups, row_weights=weights)
    wanted = StabilitySelection(base, **options).fit(x[kept], y[kept], groups=groups[kept])
    np.testing.assert_array_equal(found.frequencies_, wanted.frequencies_)
    np.testing.assert_array_equal(found.lams_, wanted.lams_)


def test_weights_that_cannot_be_used_are_refused() -> None:
    x, y = table()
    with pytest.raises(ValueError, match=r"^row_weights must be None: KNeighborsRegressor takes no weights$"):
        StabilitySelection(KNeighborsRegressor(), pairs=1).fit(x, y, row_weights=np.arange(120))
    with pytest.raises(ValueError, match=r"must contain at least one non-zero number"):
        StabilitySelection(LINEAR, pairs=1).fit(x, y, row_weights=np.zeros(120))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        StabilitySelection(LINEAR, pairs=1).fit(x, y, row_weights=np.full(120, -1.0))
    with pytest.raises(ValueError, match=r"at least 4 groups"):
        StabilitySelection(LINEAR, pairs=1).fit(x, y, row_weights=(np.arange(120) < 3).astype(float))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_bound_is_a_moment_of_a_binomial_number(power: int) -> None:
    drawn = np.random.default_rng(0).binomial(8, (6 / 20) ** 2, size=1_000_000)
    assert null_bound(np.array([6.0]), 20, 8, power)[0] == pytest.approx(20 * ((drawn / 8) ** power).mean(), rel=0.02)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_random_selections_have_no_more_false_positives_than_the_bound(power: int) -> None:
    rng, false, bounds = np.random.default_rng(0), [], []
    for _ in range(200):
        entries = rng.random((20, 30))  # 10 pairs in which each feature enters at a random threshold
        found = stability_paths(entries, power=power, cutoff=1.0, lams=np.geomspace(1.0, 0.7, 30))
        false.append(float((found.scores >= 0.002).sum()))
        bounds.append(float(null_bound(found.frequencies.sum(axis=1), 30, 10, power).mean() / 0.002))
    assert 0 < np.mean(false) <= np.mean(bounds)


def test_q_values_are_the_smallest_share_of_a_selection_with_the_feature() -> None:
    efp = np.random.default_rng(0).exponential(size=30).round(1)
    shares = {t: t / (efp <= t).sum() for t in efp}
    expected = [min(1.0, *(share for t, share in shares.items() if t >= own)) for own in efp]
    np.testing.assert_allclose(q_values(efp), expected)


@pytest.mark.slow
@pytest.mark.parametrize("base", [LINEAR, CLASSES, ExtraTreesRegressor(10)], ids=["numbers", "classes", "trees"])
def test_it_finds_the_features_that_matter(base: Any) -> None:
    x, y = table(200)
    y = y > 0 if isinstance(base, SparseClassifier) else y
    selector = StabilitySelection(base, fdr=0.05, pairs=6, random_state=0).fit(x, y)
    assert selector.get_support(indices=True).tolist() == [3, 7]
    assert selector.table_["feature"][:2].tolist() in ([3, 7], [7, 3])
    assert (np.diff(selector.frequencies_, axis=0) >= 0).all()
    assert (np.diff(selector.lams_) < 0).all()


@pytest.mark.parametrize("base", [LINEAR, ExtraTreesRegressor(5)], ids=["numbers", "trees"])
def test_the_features_of_a_wanted_number_of_false_ones(base: Any) -> None:
    selector = StabilitySelection(base, max_false=0.2, pairs=3, random_state=0).fit(*table(60))
    assert (selector.support_ == (selector.efp_ <= 0.2)).all()
    assert 0 < selector.support_.sum() < 20


@pytest.mark.slow
def test_features_that_decide_the_time_of_an_event() -> None:
    x, y = table(200)
    time = np.exp(-y)
    target = np.stack([time < 2, time.clip(max=2)], axis=1)
    selector = StabilitySelection(SparseCox(hidden=(), tol=1e-4), pairs=4, random_state=0).fit(x, target)
    assert selector.get_support(indices=True).tolist() == [3, 7]


@pytest.mark.slow
def test_noise_is_seldom_selected() -> None:
    rng = np.random.default_rng(0)
    found = [
        StabilitySelection(LINEAR, pairs=2, random_state=0).fit(rng.normal(size=(40, 10)), rng.normal(size=40))
        for _ in range(10)
    ]
    assert sum(each.support_.any() for each in found) <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_the_same_to_the_bit_with_any_number_of_processes() -> None:
    x, y = table(60, 8)
    one, two = (StabilitySelection(LINEAR, pairs=2, n_jobs=jobs, random_state=0).fit(x, y) for jobs in (1, 2))
    for name in ("frequencies_", "lams_", "scores_", "q_values_", "expected_false_"):
        assert (getattr(one, name) == getattr(two, name)).all(), name
    other = StabilitySelection(LINEAR, pairs=2, random_state=1).fit(x, y)
    assert (one.scores_ != other.scores_).any()


def test_a_killed_process_changes_nothing(tmp_path: Path) -> None:
    """A fit tells of it as joblib does; the tests of the engine kill processes."""
    x, y = table(60, 8)
    mark = tmp_path / "mark"
    selector = StabilitySelection(KilledOnce(mark=str(mark)), pairs=3, lams=[0.5, 0.1], random_state=0)
    one = clone(selector).fit(x, y)
    mark.touch()
    with joblib.parallel_config("threading"):
        two = clone(selector).set_params(n_jobs=2).fit(x, y)
    assert not mark.exists()  # one was killed
    assert (one.frequencies_ == two.frequencies_).all()
    assert two.frequencies_.max() == 1


@pytest.mark.slow
def test_groups_count_as_one_feature_and_kept_ones_as_none() -> None:
    x, y = table()
    base = SparseRegressor(hidden=(), feature_groups=[[0, 1], [3, 4, 5]], keep=[19], tol=1e-4)
    selector = StabilitySelection(base, pairs=5, random_state=0).fit(x, y)
    assert selector.support_[[3, 4, 5, 7, 19]].all()
    assert selector.q_values_[19] == 0
    for columns in ([0, 1], [3, 4, 5]):
        assert len(set(selector.scores_[columns])) == 1
    firsts = [i for i in range(19) if i not in (1, 4, 5)]
    bound = null_bound(selector.frequencies_[:, firsts].sum(axis=1), 16, 5, 3).mean()
    assert selector.efp_[7] == pytest.approx(bound / selector.scores_[7])


def test_constant_and_duplicated_columns() -> None:
    x, y = table()
    twice = np.hstack([x, x[:, :3], np.ones((120, 2))])
    selector = StabilitySelection(LINEAR, pairs=4, random_state=0).fit(twice, y)
    assert selector.get_support(indices=True).tolist() == [3, 7]
    assert not selector.frequencies_[:, -2:].any()
    nothing = StabilitySelection(LINEAR, pairs=2).fit(np.ones((10, 3)), np.arange(10.0))
    assert not nothing.support_.any()
    assert (nothing.q_values_ == 1).all()


@pytest.mark.slow
def test_rows_of_groups_in_a_pipeline_with_names() -> None:
    x, y = table()
    frame = pd.DataFrame(x, columns=[f"f{i}" for i in range(20)])
    pipeline = make_pipeline(
        StandardScaler().set_output(transform="pandas"), StabilitySelection(LINEAR, pairs=5, random_state=0)
    )
    pipeline.fit(frame, y, stabilityselection__groups=np.arange(120) // 3)
    assert pipeline[-1].get_feature_names_out().tolist() == ["f3", "f7"]
    assert pd.DataFrame(pipeline[-1].table_)["feature"][:2].isin(["f3", "f7"]).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fdr": 0.0}, "fdr must be a number above 0 and at most 1; got 0.0"),
        ({"fdr": 1.5}, "fdr must be a number above 0 and at most 1; got 1.5"),
        ({"max_false": -1}, "max_false must be a number above 0; got -1"),
        ({"cutoff": "x"}, "cutoff must be a number above 0; got 'x'"),
        ({"pairs": 0}, "pairs must be a whole number of at least 1; got 0"),
        ({"power": 4}, "power must be at most 3; got 4"),
        ({"lams": [0.1, -1.0]}, "lams must be a list of numbers above 0; got [0.1, -1.0]"),
    ],
)
def test_parameters_that_are_no_use(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        StabilitySelection(LINEAR, **parameters).fit(*table())


def test_too_few_groups_and_one_class_are_refused() -> None:
    x, y = table()
    with pytest.raises(ValueError, match=r"^stability selection needs at least 4 groups of rows; got 3$"):
        StabilitySelection(LINEAR).fit(x, y, groups=np.arange(120) % 3)
    with pytest.raises(ValueError, match="needs rows of two classes at least; got one class, 1"):
        StabilitySelection(SparseClassifier(hidden=())).fit(x, np.ones(120, dtype=int))
