"""A path where the zeros would jump: it steps back to the weights before, tries other λ, and says what it could not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.path import Grid, Point, Recipe, follow, remarks
from torchlasso.path.points import log_odds
from torchlasso.path.search import TRIES, LamSearch, search
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Step, Trainer

DENSE = Point(0, 0.0, 0.0, 1000, None, None, None, None, 1, 1.0)
LAST = replace(DENSE, index=1, lam=0.01, sparsity=0.3)
GRID = Grid(10, sparsest=0.99)


def at(lam: float, sparsity: float, index: int = 2) -> Point:
    return replace(DENSE, index=index, lam=lam, sparsity=sparsity)


def searched(zeros: Callable[[float], float], lam: float, ruin: float = math.inf) -> LamSearch:
    """A search from 30 % zeros on, in which λ alone decides about the zeros; from ``ruin`` on it ruins the network."""
    found = search([DENSE, LAST], GRID)
    while not found.tries or not found.is_over:
        lam = found.lam or lam
        found.add(at(lam, zeros(lam)), is_ruined=lam >= ruin)
    return found


SMOOTH: dict[str, Callable[[float], float]] = {
    "a power of λ": lambda lam: 1 / (1 + (0.02 / lam) ** 0.8),
    "steep": lambda lam: 1 / (1 + (0.02 / lam) ** 8),
    "late": lambda lam: 1 - math.exp(-((lam / 3) ** 2)),
}


@pytest.mark.parametrize("lam", [1e-3, 0.02, 0.6])
@pytest.mark.parametrize("zeros", SMOOTH.values(), ids=SMOOTH)
def test_the_search_finds_the_wanted_zeros(zeros: Callable[[float], float], lam: float) -> None:
    found = searched(zeros, lam)
    assert abs(found.best.far) <= found.near
    assert found.miss is None
    assert len(found.tries) <= TRIES


def test_a_lam_that_is_near_enough_is_not_searched_for() -> None:
    found = searched(lambda lam: 0.38, 0.0123)
    assert [t.point.lam for t in found.tries] == [0.0123]


@pytest.mark.parametrize("lam", [0.001, 0.05])
def test_a_jump_is_told_with_its_lams(lam: float) -> None:
    """All blocks die at one λ: no λ gives a share between."""
    found = searched(lambda lam: 0.3 if lam < 0.0123 else 0.989, lam)
    assert found.low is not None
    assert found.high is not None
    assert found.low.point.lam < 0.0123 <= found.high.point.lam
    assert found.high.point.lam < 1.3 * found.low.point.lam
    lams = f"λ = {found.low.point.lam:.4g} and λ = {found.high.point.lam:.4g}"
    assert found.miss == f"between {lams} the zeros jump from 30.0 % to 98.9 %"
    assert len(found.tries) <= TRIES


def test_a_lam_that_ruins_the_network_is_not_kept_where_a_smaller_one_leads_on() -> None:
    found = searched(SMOOTH["a power of λ"], 0.05, ruin=0.0135)
    assert 0.01 < found.best.point.lam < 0.0135
    assert not found.best.is_ruined


def test_a_jump_into_ruin_is_not_made() -> None:
    found = searched(lambda lam: 0.3 if lam < 0.0123 else 0.989, 0.05, ruin=0.0123)
    assert found.best.point.sparsity == 0.3
    assert found.high is not None
    assert found.miss is not None
    assert found.miss.endswith(
        f"gives 30.0 % zeros instead of 45.8 %, and λ = {found.high.point.lam:.4g} ruins the network"
    )


def test_a_path_ends_where_the_wanted_zeros_are_ruin() -> None:
    wanted = search([DENSE, LAST], GRID).wanted
    found = searched(lambda lam: 0.3 if lam < 0.0123 else 1 / (1 + math.exp(wanted)), 0.05, ruin=0.0123)
    assert found.best.is_ruined
    assert found.miss is None


def test_zeros_that_no_lam_changes() -> None:
    found = searched(lambda lam: 0.2, 0.01)
    assert len(found.tries) == TRIES
    assert found.best.point.lam == min(t.point.lam for t in found.tries)
    assert found.miss is not None
    assert "gives 20.0 % zeros instead of" in found.miss


def test_the_trainings_of_a_path_are_bounded() -> None:
    """All points together have one more training for each point, and a few."""
    before = [DENSE, replace(LAST, tries=GRID.points + TRIES - 2), at(0.02, 0.4)]
    assert search(before, GRID).most == 4
    assert search([DENSE, replace(LAST, tries=100), at(0.02, 0.4)], GRID).most == 1


def test_remarks_on_given_lams() -> None:
    grid = Grid(6, lams=(0.01, 0.16))
    zeros = (0.0, 0.0, 0.3, 0.989, 0.995)
    points = [DENSE, *(at(0.01 * 2**k, share, k + 1) for k, share in enumerate(zeros))]
    first, second = remarks(points, grid, 0.25)
    assert first.startswith("Between λ = 0.04 and λ = 0.08, which were given, the zeros jump from 30.0 % to 98.9 %: ")
    assert second == "2 points, from λ = 0.01 to λ = 0.02, have no zeros."


def test_remarks_on_a_path_that_ends_early() -> None:
    (found,) = remarks([DENSE, LAST], GRID, 0.25)
    assert found.startswith("The path ends at point 2 of 10, with 30.0 % zeros: ")
    assert "more than 25% of the way" in found
    (found,) = remarks([DENSE, replace(LAST, miss="it jumps", tries=8)] * 5, replace(GRID, sparsest=0.6), 0.25)[:1]
    assert found == "Point 2: it jumps, after 8 trainings."
    assert not remarks([DENSE, at(0.1, 0.989)], Grid(2, sparsest=0.99), 0.25)


Rows = tuple[Tensor, Tensor]
OVERS: dict[str, Callable[[nn.Module], Any]] = {
    "weights": lambda model: tl.L1(),
    "rows": lambda model: tl.L1(over=tl.Rows()),
    "columns": lambda model: tl.L1(over=tl.Columns()),
    "units": lambda model: tl.L1(over=tl.Units(model, torch.zeros(2, 20))),
}


def rows_of(n: int, *, classes: bool) -> Rows:
    x = torch.randn(n, 20, generator=torch.Generator().manual_seed(n))
    y = x[:, :3].sum(dim=1)
    return x, (y > 0).long() if classes else y[:, None]


def recipe_of(grid: Grid, over: str = "weights", *, classes: bool = True) -> Recipe:
    """The trainings are so short that λ depends on their length more than on the data."""
    return Recipe(
        grid,
        groups=lambda model: tl.param_groups(model, OVERS[over](model), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=1e-2),
        loss=nn.functional.cross_entropy if classes else nn.functional.mse_loss,
        dense=Plan(6, batch_size=50),
        each=Plan(5, batch_size=50),
    )


def model_of(*, classes: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2 if classes else 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "classes"), [("weights", True), ("rows", True), ("columns", True), ("units", True), ("weights", False)]
)
def test_a_short_path_has_its_points_without_a_jump(over: str, classes: bool) -> None:
    grid = Grid(4, sparsest=0.9)
    rows = rows_of(200, classes=classes), rows_of(100, classes=classes)
    points = list(follow(model_of(classes=classes), recipe_of(grid, over, classes=classes), *rows))
    assert len(points) == 4
    assert points[1].sparsity == pytest.approx(0.5, abs=0.17)
    assert 0.78 < points[-1].sparsity < 0.95
    steps = [log_odds(a.sparsity) - log_odds(b.sparsity) for a, b in pairwise(points[1:])]
    assert max(steps) < 1.9  # evenly, it would be 1.1
    assert sum(point.tries - 1 for point in points) <= 4 + TRIES
    assert remarks(points, grid, 0.25) or points[-1].sparsity == pytest.approx(0.9, abs=0.06)


def test_a_search_for_lam_resumes_to_the_last_bit() -> None:
    """Every training of a point starts from the weights of the point before."""
    starts: list[Tensor] = []

    def watch(index: int, trainer: Trainer) -> Callable[[Step], None]:
        starts.append(trainer.model[0].weight.detach().clone())  # type: ignore[index, union-attr]
        return lambda step: None

    recipe, rows = recipe_of(Grid(4, sparsest=0.9)), (rows_of(200, classes=True), rows_of(100, classes=True))
    model, points, states = model_of(), [], []
    for point in follow(model, recipe, *rows, watch=watch):
        points.append(point)
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert points[1].tries > 2
    assert len(starts) == sum(point.tries for point in points)
    assert all(torch.equal(start, states[0]["0.weight"]) for start in starts[1 : 1 + points[1].tries])
    resumed = model_of()
    resumed.load_state_dict(states[0])
    again = list(follow(resumed, recipe, *rows, done=points[:1]))
    assert [replace(point, seconds=0.0) for point in again] == [replace(point, seconds=0.0) for point in points[1:]]
    assert all(torch.equal(tensor, states[-1][name]) for name, tensor in resumed.state_dict().items())


def test_given_lams_are_never_refined() -> None:
    grid = Grid(3, lams=(1e-3, 1.0))
    points = list(follow(model_of(), recipe_of(grid), rows_of(200, classes=True)))
    assert [point.lam for point in points[1:]] == grid.strengths
    assert {point.tries for point in points} == {1}
    (found,) = remarks(points, grid, 0.25)
    assert "which were given, the zeros jump" in found
