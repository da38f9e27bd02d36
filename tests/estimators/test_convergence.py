"""Networks whose training ended too early say so, as scikit-learn's do, and those of the default length do not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import nn

from torchlasso.estimators import (
    FeatureSelector,
    SparseClassifier,
    SparseCox,
    SparseRegressor,
    SparseRegressorCV,
)
from torchlasso.estimators.convergence import FALLS, LEFT, REACH, WAY, Course
from torchlasso.optim import ProxAdam
from torchlasso.penalties import L1
from torchlasso.selection import param_groups


def linear(noise: float = 0.1, rows: int = 200) -> Any:
    order = np.random.default_rng(0)
    x = order.normal(size=(rows, 10))
    return x, x[:, 0] - 2 * x[:, 3] + noise * order.normal(size=rows)


def product() -> Any:
    order = np.random.default_rng(0)
    x = order.normal(size=(600, 8))
    return x, x[:, 0] * x[:, 1] + 0.1 * order.normal(size=600)


REGRESSIONS = {
    "product": product,
    "linear": linear,
    "noisy": lambda: linear(3.0),
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "friedman1": lambda: datasets.make_friedman1(400, noise=1, random_state=0),
    "friedman2": lambda: datasets.make_friedman2(400, noise=50, random_state=0),
    "friedman3": lambda: datasets.make_friedman3(400, noise=0.1, random_state=0),
    "make_regression": lambda: datasets.make_regression(270, 30, n_informative=5, noise=10, random_state=0),
    "swiss_roll": lambda: datasets.make_swiss_roll(500, random_state=0),
}
CLASSES = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "moons": lambda: datasets.make_moons(400, noise=0.2, random_state=0),
    "make_classification": lambda: datasets.make_classification(400, 20, random_state=0),
}
TABLES = [(SparseRegressor, each) for each in REGRESSIONS] + [(SparseClassifier, each) for each in CLASSES]


def halves(name: str) -> Any:
    table = {**REGRESSIONS, **CLASSES}[name]()
    return train_test_split(*table, test_size=0.33, random_state=0)


def said(model: Any, x: Any, y: Any) -> list[str]:
    """The warnings of convergence of a fit."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model.fit(x, y)
    assert all(each.category is not ConvergenceWarning or each.filename == __file__ for each in noted)
    return [str(each.message) for each in noted if each.category is ConvergenceWarning]


@pytest.mark.parametrize(("kind", "name"), TABLES, ids=[name for _, name in TABLES])
@pytest.mark.parametrize("how", [{"lam": 0.01}, {"features": 2, "penalty": "mcp"}], ids=["lam", "features"])
def test_the_default_length_is_enough(kind: Any, name: str, how: dict[str, Any]):
    x, _, y, _ = halves(name)
    how = {**how, "features": min(2, x.shape[1] - 1)} if "features" in how else how
    assert said(kind(**how, points=1, random_state=0), x, y) == []


@pytest.mark.parametrize("name", ["linear", "product", "friedman1", "friedman2", "friedman3", "swiss_roll", "iris"])
def test_where_more_epochs_are_much_better_it_is_said(name: str):
    x, other, y, wanted = halves(name)
    kind = SparseClassifier if name in CLASSES else SparseRegressor
    short = kind(lam=0.01, epochs=20, points=1, random_state=0)
    (warning,) = said(short, x, y)
    steps = 20 * -(-len(x) // 200)
    assert warning.startswith(f"the training of the network ended too early, after {steps} steps: its ")
    assert warning.endswith(". Give it more epochs than 20.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        long = kind(lam=0.01, points=1, random_state=0).fit(x, y)
    assert long.score(other, wanted) > short.score(other, wanted) + 0.1


@pytest.mark.parametrize(
    "model",
    [
        SparseRegressor(features=2, epochs=10),
        SparseRegressor(lam=0.01, epochs=10, relaxed=True),
        SparseRegressor(lam=0.01, epochs=10, early_stopping=True),
        SparseRegressor(lam=0.01, lr=1e-4),
        SparseRegressor(lam=0.01, epochs=10, module=nn.Linear),
        SparseRegressorCV(epochs=10, lams=3, cv=2),
    ],
    ids=str,
)
def test_it_is_said_once_however_the_network_is_trained(model: Any):
    assert len(said(model.set_params(random_state=0, points=1), *linear())) == 1


def test_it_is_said_of_the_networks_of_a_selector():
    x, y = linear()
    with pytest.warns(ConvergenceWarning, match=r"Give it more epochs than 10\."):
        FeatureSelector(SparseRegressor(epochs=10, penalty="mcp", random_state=0), features=2).fit(x, y)


def test_it_is_said_of_survival():
    x, risk = linear()
    times = np.exp(-risk / 2) * np.random.default_rng(1).exponential(size=len(x))
    survived = np.stack([np.ones(len(x)), times], axis=1)
    assert len(said(SparseCox(lam=0.01, epochs=8, points=1, random_state=0), x, survived)) == 1
    assert said(SparseCox(lam=0.01, points=1, random_state=0), x, survived) == []


@pytest.mark.parametrize("model", [SparseRegressor(0.1, hidden=(), epochs=1), SparseRegressor(0.1, epochs=1)])
def test_a_model_that_is_solved_exactly_is_never_early(model: Any):
    x, y = linear()
    assert said(model, x, y if model.is_linear else np.ones(len(y))) == []  # of a constant, a linear model says all


def course(objectives: list[float], way: float, searches: bool = False) -> Course:
    """The course of a training with these objectives, in which each weight went this share of the longest way."""
    net = nn.Linear(3, 2)
    nn.init.zeros_(net.bias)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -1.0, 2.0], [3.0, -2.0, 0.0]]))
        found = Course(net, ProxAdam(param_groups(net, L1(), lam=0.0), lr=0.1), 2.0, 5.0, searches)
        net.weight[:, :] += 5.0 * way * torch.tensor([[1.0, -1.0, 1.0], [1.0, -1.0, 0.0]])
    for objective in objectives:
        found.after_epoch(objective)
    return found


def test_the_fall_is_that_between_two_parts_of_the_training():
    falls = [9.0] * 20 + [0.501 + 2 * FALLS] * 15 + [0.9] * 55 + [0.5] * 10
    assert "still fell" in course(falls, 0.0).ended_early
    assert "its objective still fell, by 18% of the loss of a constant" in course(falls, 0.0).ended_early
    assert course([each - 0.01 * (each > 0.5) for each in falls], 0.0).ended_early == ""
    assert course(falls, 0.0, searches=True).ended_early == ""  # λ rose or fell as well


@pytest.mark.parametrize("searches", [False, True])
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_the_way_counts_while_something_is_left(epochs: int, searches: bool):
    assert "at 51% of the longest one" in course([2 * LEFT] * epochs, WAY + 0.01, searches).ended_early
    assert course([2 * LEFT] * epochs, WAY - 0.01, searches).ended_early == ""
    assert course([0.9 * 2 * LEFT] * epochs, WAY + 0.01, searches).ended_early == ""
    assert "at 100%" in course([0.6 * 2 * LEFT] * epochs, 1.0, searches).ended_early  # the longer, the less is enough


def test_a_short_reach_counts_while_something_is_left():
    """As for a product of two features, of which a network sees nothing for a long time."""
    short = course([2 * LEFT, 2 * LEFT], 0.0)
    assert short.ended_early == ""
    short.longest = REACH
    assert short.ended_early == "its learning rates add up to 0.35, and no weight goes further"
    short.objectives = [0.9 * 2 * LEFT] * 3
    assert short.ended_early == ""


def test_without_weights_or_a_loss_nothing_is_early():
    empty = course([1.0], 0.0)
    nn.init.zeros_(empty.network.weight)
    assert empty.ended_early == ""
    nothing = course([1.0, 0.5], 0.0)
    nothing.constant = 0.0
    assert nothing.ended_early == ""
