"""Stability selection by networks: many that are trained as one, beside one by one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchlasso.estimators import SparseClassifier, SparseRegressor, StabilitySelection
from torchlasso.estimators.base import SparseEstimator
from torchlasso.estimators.feature_groups import groups_of_features
from torchlasso.estimators.sensitivities import NetworkStack, SingleNetworks, sensitivities

SHORT: dict[str, Any] = {"lam": 0.01, "hidden": (6,), "lr": 0.03, "epochs": 30, "batch_size": 500, "random_state": 0}


def waves(n: int, p: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which three matter, two of them only together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.2 * rng.normal(size=n)
    return x, (y - y.mean()) / y.std()


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(40, 40, 40), (40, 31, 52)], ids=["equal halves", "halves of other sizes"])
@pytest.mark.parametrize(
    "estimator",
    [SparseRegressor(**SHORT), SparseRegressor(**SHORT, penalty="l1", l1_ratio=0.5), SparseClassifier(**SHORT)],
    ids=["numbers", "elastic net", "three classes"],
)
def test_networks_that_are_trained_as_one_are_those_that_are_trained_one_by_one(
    estimator: SparseEstimator, sizes: tuple[int, ...]
) -> None:
    x, y = waves(60)
    labels = np.digitize(y, [-0.5, 0.5]) if isinstance(estimator, SparseClassifier) else y
    table, groups = estimator._table(x, labels), groups_of_features(None, (), 12, None)
    rng = np.random.default_rng(0)
    halves = [table.some(np.sort(rng.permutation(60)[:size])) for size in sizes]
    one_by_one = SingleNetworks(estimator, groups, 0.1)(halves, [5, 6, 7])
    together = NetworkStack(estimator, 0.1)(halves, [5, 6, 7])
    assert 0 < (one_by_one == 0).sum() < one_by_one.size  # some features are gone
    np.testing.assert_allclose(together, one_by_one, atol=1e-10)


def test_small_batches_are_those_of_all_networks() -> None:
    x, y = waves(400, 6)
    estimator = SparseRegressor(**{**SHORT, "hidden": (16,), "batch_size": 50})
    found = NetworkStack(estimator, 0.01)([estimator._table(x, y)] * 2, [1, 2])
    assert found.shape == (2, 6)
    assert (np.sort(np.argsort(-found, axis=1)[:, :3]) == [0, 1, 2]).all()


def test_the_sensitivity_is_the_root_mean_square_of_the_derivatives() -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    expected = torch.stack([torch.autograd.functional.jacobian(network, row) for row in x])  # (7, 2, 3)
    torch.testing.assert_close(sensitivities(network, x), expected.square().sum(dim=1).mean(dim=0).sqrt())
    shares = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0]).double()
    torch.testing.assert_close(sensitivities(network, x, shares), expected[:2].square().sum(dim=1).mean(dim=0).sqrt())


@pytest.mark.slow
def test_networks_find_features_that_matter_only_together() -> None:
    x, y = waves(500, 20)
    selector = StabilitySelection(pairs=10, random_state=0).fit(x, y)
    assert selector.get_support(indices=True).tolist() == [0, 1, 2]
    again = StabilitySelection(pairs=10, random_state=0).fit(x, 1000 * y)
    np.testing.assert_allclose(again.scores_, selector.scores_)
    linear = StabilitySelection(SparseRegressor(hidden=(), tol=1e-4), pairs=10, random_state=0).fit(x, y)
    assert not linear.support_[1:].any()
    classes = StabilitySelection(pairs=10, random_state=0).fit(x, np.where(y > 0, "high", "low"))
    assert set(classes.get_support(indices=True)) <= {0, 1, 2}
    assert classes.support_[0]


def test_groups_kept_features_and_other_networks_are_trained_one_by_one() -> None:
    x, y = waves(80, 6)
    settings = {**SHORT, "feature_groups": [[1, 2]], "keep": [5]}
    selector = StabilitySelection(SparseRegressor(**settings), pairs=2, random_state=0).fit(x, y)
    assert selector.scores_[1] == selector.scores_[2]
    assert selector.support_[5]
    deep = {**SHORT, "module": lambda features, outputs: nn.Sequential(nn.Linear(features, 4), nn.Linear(4, outputs))}
    assert StabilitySelection(SparseRegressor(**deep), pairs=2, random_state=0).fit(x, y).frequencies_.any()


@pytest.mark.parametrize("parameters", [{"lam": "null"}, {"features": 3}])
def test_networks_need_a_number_as_lam(parameters: dict[str, Any]) -> None:
    expected = "stability selection with hidden layers needs an estimator with a number as lam, and without features"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}; got lam="):
        StabilitySelection(SparseRegressor(**parameters)).fit(*waves(20))
