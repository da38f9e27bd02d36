"""Networks learn the same from targets and columns of any unit: from prices as well as from millionths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchlasso.estimators import (
    FeatureSelector,
    SparseClassifier,
    SparseRegressor,
    SparseRegressorCV,
    StabilitySelection,
)
from torchlasso.estimators.losses import SQUARED, Targets
from torchlasso.estimators.standardized import TargetScale

UNITS = [(200_000.0, 50_000.0), (0.0, 1e-6), (1e9, 10.0)]
OPTIONS: list[dict[str, Any]] = [{"penalty": "l1", "l1_ratio": 0.5, "standardize": True}, {"relaxed": True}]
OPTIONS += [{"early_stopping": True}]
NETWORK: dict[str, Any] = {"hidden": (8,), "epochs": 25, "batch_size": 40, "random_state": 0}


def _table(targets: int = 1) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 5))
    y = np.stack([2 * x[:, 1] - np.abs(x[:, 3]), x[:, 1] + x[:, 4]][:targets], axis=1)
    return x, (y + 0.1 * random.normal(size=y.shape)).squeeze()


@pytest.mark.parametrize(
    ("shift", "unit", "options"),
    [*((*unit, {"points": 3}) for unit in UNITS), *((*UNITS[0], options) for options in OPTIONS)],
)
def test_a_network_is_the_same_in_any_unit(shift: float, unit: float, options: dict[str, Any]) -> None:
    x, y = _table()
    plain = SparseRegressor(lam=0.3, **NETWORK, **options).fit(x, y)
    other = SparseRegressor(lam=0.3, **NETWORK, **options).fit(x, shift + unit * y)
    assert plain.score(x, y) > 0.5
    np.testing.assert_allclose((other.predict(x) - shift) / unit, plain.predict(x), atol=1e-3)
    assert (other.support_ == plain.support_).all()
    np.testing.assert_allclose(other.feature_importances_, plain.feature_importances_, rtol=1e-5)
    np.testing.assert_allclose([p.loss / unit**2 for p in other.path_], [p.loss for p in plain.path_], rtol=1e-2)


@pytest.mark.parametrize(("shift", "unit"), UNITS)
def test_several_targets_share_one_unit(shift: float, unit: float) -> None:
    x, y = _table(targets=2)
    plain = SparseRegressor(lam=0.1, **NETWORK).fit(x, y)
    other = SparseRegressor(lam=0.1, **NETWORK).fit(x, shift + unit * y)
    np.testing.assert_allclose((other.predict(x) - shift) / unit, plain.predict(x), atol=1e-3)


def test_the_number_of_features_and_the_choice_of_lam_are_the_same_in_any_unit() -> None:
    x, y = _table()
    prices = 2e5 + 5e4 * y
    both = [SparseRegressor(features=2, **NETWORK).fit(x, target).support_ for target in (y, prices)]
    assert both[0].tolist() == both[1].tolist()
    assert both[0].sum() == 2
    assert both[0][1]
    chosen = [SparseRegressorCV(cv=3, lams=4, penalty="l1", **NETWORK).fit(x, target) for target in (y, prices)]
    assert chosen[1].lam_ == pytest.approx(chosen[0].lam_)
    assert chosen[0].score(x, y) > 0.7
    assert chosen[1].score(x, prices) == pytest.approx(chosen[0].score(x, y), abs=1e-3)


def test_stability_selection_of_given_networks_is_the_same_in_any_unit() -> None:
    x, y = _table()
    options = {**NETWORK, "penalty": "l1", "epochs": 20}
    for extra in ({}, {"early_stopping": True}):  # many networks as one, and one by one
        plain, other = (
            StabilitySelection(SparseRegressor(lam=0.05, **options, **extra), pairs=3, random_state=0).fit(
                x, shift + unit * y
            )
            for shift, unit in ((0.0, 1.0), (2e5, 5e4))
        )
        np.testing.assert_allclose(other.lams_, plain.lams_, rtol=1e-3)
        assert (other.frequencies_ == plain.frequencies_).mean() > 0.95  # at a threshold, rounding decides


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_of_a_constant_target_nothing_is_read(hidden: tuple[int, ...], value: float) -> None:
    x, y = _table()[0], np.full(80, value)
    model = SparseRegressor(lam=0.01, **{**NETWORK, "hidden": hidden}).fit(x, y)
    assert not model.support_.any()
    np.testing.assert_allclose(model.predict(x), y, rtol=1e-12)
    with pytest.raises(ValueError, match="says anything about y, which is the same in all rows"):
        FeatureSelector(SparseRegressor(hidden=hidden), features=2).fit(x, y)


@pytest.mark.parametrize("unit", [1e-200, 1e200])  # their squares are 0 and infinite
def test_networks_learn_from_extreme_numbers(unit: float) -> None:
    x, y = _table()
    model = SparseRegressor(lam=0.05, points=2, **NETWORK).fit(unit * x, unit * y)
    assert np.corrcoef(model.predict(unit * x) / unit, y)[0, 1] > 0.8


@pytest.mark.parametrize("columns", [5, 100])  # few, and more than rows
def test_all_features_may_be_asked_for(columns: int) -> None:
    x = np.random.default_rng(0).normal(size=(20, columns))
    found = SparseRegressor(features=columns, **NETWORK).fit(x, x[:, 1])
    assert found.support_.sum() == columns
    with pytest.raises(ValueError, match=f"at most the number of features, {columns}; got {columns + 1}"):
        SparseRegressor(features=columns + 1, **NETWORK).fit(x, x[:, 1])


def test_the_scale_counts_rows_by_their_weights() -> None:
    y = torch.tensor([[1.0, 5.0], [4.0, 5.0], [9.0, 7.0]], dtype=torch.float64)
    weighted = TargetScale.of(Targets(y, torch.tensor([2.0, 1.0, 0.0]), 2, SQUARED))
    twice = TargetScale.of(Targets(y[[0, 0, 1]], torch.ones(3), 2, SQUARED))
    np.testing.assert_allclose(weighted.centre, [2.0, 5.0])
    np.testing.assert_allclose(weighted.centre, twice.centre)
    assert weighted.spread == pytest.approx(1.0) == pytest.approx(twice.spread)  # variances 2 and 0


def test_networks_learn_from_columns_of_any_unit() -> None:
    x, (_, y) = _table()[0], _table(targets=2)[1].T
    raw = 1900 + x * [1e-4, 1.0, 30.0, 2000.0, 1e6]
    plain, other = (SparseClassifier(lam=0.05, points=2, **NETWORK).fit(each, y > 0) for each in (x, raw))
    assert plain.score(x, y > 0) > 0.9
    np.testing.assert_allclose(other.predict_proba(raw), plain.predict_proba(x), atol=1e-3)
    np.testing.assert_allclose(other.feature_importances_, plain.feature_importances_, rtol=1e-5)
    as_they_are = SparseClassifier(lam=0.05, points=2, standardize=False, **NETWORK).fit(raw, y > 0)
    assert as_they_are.score(raw, y > 0) < 0.9
    own = SparseClassifier(lam=0.05, points=2, module=lambda p, q: nn.Linear(p, q), **NETWORK).fit(raw, y > 0)
    assert own.score(raw, y > 0) < 0.9  # it takes the columns as they are


def test_stability_selection_ranks_columns_of_any_unit_the_same() -> None:
    x, y = _table()
    found = [
        StabilitySelection(pairs=2, random_state=0).fit(each, y) for each in (x, 1900 + x * [1e-4, 1, 30, 2e3, 1e6])
    ]
    assert found[0].scores_.argmax() == 1
    np.testing.assert_allclose(found[0].scores_, found[1].scores_, atol=0.05)


@pytest.mark.parametrize("standardize", ["yes", None, 2])
def test_a_wrong_standardize_is_named(standardize: Any) -> None:
    x, y = _table()
    with pytest.raises(ValueError, match='standardize must be True, False or "auto"; got'):
        SparseRegressor(standardize=standardize).fit(x, y)
