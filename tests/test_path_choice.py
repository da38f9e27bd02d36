"""The end of a path and the choice of its point: rules, ties, means of cross-validation, and folds."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.path import Grid, Point, Recipe, choose, collapsed, folds_of, pooled
from torchlasso.path.spreads import standard_error
from torchlasso.training.evaluation import Evaluation, evaluate
from torchlasso.training.losses import Loss
from torchlasso.training.plan import Plan
from torchlasso.training.survival import cox

pytestmark = pytest.mark.slow


def made(index: int, value: float | None, sparsity: float, spread: float | None = 0.0, *, loss: bool = False) -> Point:
    """A point with this validation error, or loss."""
    found = (
        None if value is None else Evaluation(value, None, None) if loss else Evaluation(9.0, 1 - value, value, value)
    )
    return Point(index, float(index), sparsity, round(1000 * (1 - sparsity)), found, None, spread, None, 1, 0.5)


def recipe_of(loss: Loss = nn.functional.cross_entropy) -> Recipe:
    return Recipe(
        Grid(),
        groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=0.02),
        loss=loss,
        dense=Plan(1),
        each=Plan(1),
    )


@pytest.mark.parametrize(("last", "expected"), [(0.3125, False), (0.3126, True), (0.6, True), (0.1, False)])
def test_the_threshold_of_a_collapse(last: float, expected: bool) -> None:
    """A quarter of the way from the best point to guessing: errors of 0.25 and 0.5, losses of 0.25 and 0.5."""
    points = [made(0, 0.5, 0.0), made(1, 0.25, 0.5), made(2, last, 0.9)]
    y = torch.tensor([0, 0, 1, 1])
    assert collapsed(points, recipe_of(), (torch.zeros(4, 1), y)) is expected
    losses = [replace(point, validation=Evaluation(point.badness or 0.0, None, None)) for point in points]
    numbers = torch.tensor([[-1.0], [0.0], [0.0], [1.0]])
    assert collapsed(losses, recipe_of(nn.functional.mse_loss), (torch.zeros(4, 1), numbers)) is expected
    assert not collapsed(points, recipe_of(), None)


POINTS = [made(0, 0.25, 0.0), made(1, 0.125, 0.5, 0.0625), made(2, 0.125, 0.6, 0.0625), made(3, 0.1875, 0.9)]
POINTS += [made(4, 0.25, 0.95), made(5, 0.9, 0.99)]


@pytest.mark.parametrize("loss", [False, True])
@pytest.mark.parametrize(
    ("rule", "tolerance", "expected"),
    [
        ("best", 0.0, 2),
        ("best", 0.5, 2),
        ("one-se", 0.0, 3),
        ("within", 0.0, 2),
        ("within", 0.125, 4),
        ("within", 1, 5),
    ],
)
def test_the_choice(rule: str, tolerance: float, expected: int, loss: bool) -> None:
    """The sparsest of the points that are good enough is chosen, also if the path went back and forth."""
    points = [made(p.index, p.badness, p.sparsity, p.spread, loss=loss) for p in POINTS]
    assert choose(points, rule, tolerance).index == expected
    assert choose(points[::-1], rule, tolerance).index == expected
    assert choose([replace(point, spread=None) for point in points]).index == 2
    assert choose(points) is choose(points, "one-se")


def test_of_equally_many_weights_the_lower_error_is_chosen_and_then_the_first() -> None:
    points = [made(0, 0.1, 0.5, 0.1), made(1, 0.15, 0.9), made(2, 0.125, 0.9), made(3, 0.125, 0.9)]
    assert choose(points).index == 2
    fewer = replace(points[1], sparsity=0.2, nonzero=10)  # a small model, with a lower share of zeros
    assert choose([points[0], fewer, *points[2:]]).index == 1


@pytest.mark.parametrize(
    ("points", "rule", "tolerance", "word"),
    [
        (POINTS, "one_se", 0.0, "did you mean 'one-se'"),
        *((POINTS, "within", value, f"got {value!r}") for value in (-0.1, math.nan, math.inf)),
        ([], "best", 0.0, "validation rows"),
        ([made(0, None, 0.0)], "best", 0.0, "validation rows"),
        ([*POINTS, made(6, None, 0.0)], "one-se", 0.0, "validation rows"),
    ],
)
def test_a_choice_that_is_refused(points: list[Point], rule: str, tolerance: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        choose(points, rule, tolerance)


@pytest.mark.parametrize("loss", [False, True])
def test_pooled_points_have_the_means_of_the_folds_and_their_standard_errors(loss: bool) -> None:
    points = [made(k, 0.9, 0.1 * k, loss=loss) for k in range(4)]
    values = [[0.1, 0.2, 0.3], [0.3, 0.2], [0.2, 0.4, 0.6]]  # of three folds; the second one ended sooner
    folds = [[made(k, value, 0.0, loss=loss) for k, value in enumerate(fold)] for fold in values]
    found = pooled(points, folds)
    for k, (point, column) in enumerate(zip(found, ((0.1, 0.3, 0.2), (0.2, 0.2, 0.4)), strict=True)):
        assert point.badness == pytest.approx(np.mean(column))
        assert point.spread == pytest.approx(np.std(column, ddof=1) / math.sqrt(3))
        assert point.validation is not None
        assert point.validation.loss == pytest.approx(np.mean(column) if loss else 9.0)
        assert point.validation.accuracy == (None if loss else pytest.approx(1 - np.mean(column)))
        assert {**asdict(point), "validation": 0, "spread": 0} == {**asdict(points[k]), "validation": 0, "spread": 0}


def test_the_standard_error_of_folds_that_differ_in_their_events_is_that_of_independent_parts() -> None:
    folds = [[made(0, value, 0.0, spread, loss=True)] for value, spread in ((1.0, 0.3), (2.0, 0.4), (3.0, 1.2))]
    [found] = pooled([made(0, 9.0, 0.0, loss=True)], folds, folds_are_alike=False)
    assert found.badness == pytest.approx(2.0)
    assert found.spread == pytest.approx(1.3 / 3)


def survival(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log risks that decide the times, (rows, 1), and the times and events, (rows, 2)."""
    generator = torch.Generator().manual_seed(seed)
    risk = torch.randn(rows, 1, generator=generator)
    time = torch.rand(rows, generator=generator).log().neg() * (-risk[:, 0]).exp()
    left = 2 * torch.rand(rows, generator=generator).log().neg()
    return risk, torch.stack([torch.minimum(time, left), (time <= left).float()], dim=1)


@pytest.mark.parametrize("rows", [20, 100])
def test_the_standard_error_of_survival_is_the_one_of_a_bootstrap_of_its_gain(rows: int) -> None:
    risk, y = survival(rows, seed=0)
    generator, gains = torch.Generator().manual_seed(1), list[float]()
    for _ in range(400):
        some = torch.randint(rows, (rows,), generator=generator)
        gains.append(float(cox(risk[some], y[some]) - cox(0 * risk[some], y[some])))
    found = standard_error(nn.Identity(), cox, evaluate(nn.Identity(), cox, risk, y), risk, y)
    assert found == pytest.approx(np.std(gains, ddof=1), rel=0.2)
    order = torch.randperm(rows, generator=generator)
    again = standard_error(nn.Identity(), cox, evaluate(nn.Identity(), cox, risk, y), risk[order], y[order])
    assert again == pytest.approx(found)


@pytest.mark.parametrize(("n", "k"), [(10, 2), (11, 3), (7, 7), (100, 8)])
def test_the_folds_are_a_partition(n: int, k: int) -> None:
    folds = folds_of(n, k, seed=5)
    assert len(folds) == k
    assert sorted(row for _, held in folds for row in held.tolist()) == list(range(n))
    for kept, held in folds:
        assert sorted(kept.tolist() + held.tolist()) == list(range(n))
        assert len(held) in (n // k, -(-n // k))
    assert all(
        torch.equal(a, b) for x, y in zip(folds, folds_of(n, k, 5), strict=True) for a, b in zip(x, y, strict=True)
    )
    assert [held.tolist() for _, held in folds] != [held.tolist() for _, held in folds_of(n, k, seed=6)]


@pytest.mark.parametrize("k", [1, 0, -2, 11])
def test_folds_that_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"from 2 to the number of rows, 10; got {k}$"):
        folds_of(10, k, seed=0)
