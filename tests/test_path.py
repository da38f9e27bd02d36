"""The regularization path: its grid and its points, scikit-learn's solutions, warm starts, and going on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import lasso_path
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.path import Grid, Point, Recipe, collapsed, follow, train_alone
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Step, Trainer

pytestmark = pytest.mark.slow

CROSS_ENTROPY, MSE = nn.functional.cross_entropy, nn.functional.mse_loss
Rows = tuple[Tensor, Tensor]
State = dict[str, Tensor]
Path = list[tuple[Point, State]]


def rows_of(n: int, seed: int, *, classes: bool) -> Rows:
    """Twenty inputs, each of less weight than the one before."""
    x = torch.randn(n, 20, generator=torch.Generator().manual_seed(seed))
    weights = torch.randn(20, 3, generator=torch.Generator().manual_seed(77)) * 0.9 ** torch.arange(20)[:, None]
    return x, (x @ weights).argmax(1) if classes else x @ weights[:, :1]


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(20), nn.Dropout(0.1), nn.Linear(20, 3))


def regressor() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 1))


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.dim() == 2]


def recipe_of(grid: Grid, loss: Any = CROSS_ENTROPY, epochs: tuple[int, int] = (8, 4), **more: Any) -> Recipe:
    return Recipe(
        grid,
        groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=0.02),
        loss=loss,
        dense=Plan(epochs[0], batch_size=20, seed=3),
        each=Plan(epochs[1], batch_size=20, seed=3),
        **more,
    )


def followed(model: nn.Module, *args: Any, **more: Any) -> Path:
    """The points, each with the weights that the model had then."""
    return [(point, state_of(model)) for point in follow(model, *args, **more)]


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def untimed(points: list[Point]) -> list[Point]:
    return [replace(point, seconds=0.0) for point in points]


CLASSES = tuple(rows_of(n, seed, classes=True) for seed, n in enumerate((240, 60, 40)))
NUMBERS = tuple(rows_of(n, seed, classes=False) for seed, n in enumerate((120, 67, 40)))
BY_DENSITY = recipe_of(Grid(6, sparsest=0.9), epochs=(40, 10), lam=1e-3, collapse=1.0)
BY_LAM = recipe_of(Grid(4, lams=(0.01, 0.08)), MSE)


@pytest.fixture(scope="module")
def by_density() -> Path:
    return followed(classifier(), BY_DENSITY, *CLASSES)


@pytest.fixture(scope="module")
def by_lam() -> Path:
    return followed(regressor(), BY_LAM, *NUMBERS)


@pytest.mark.parametrize("kind", ["by_density", "by_lam"])
def test_the_figures_of_a_point_describe_its_model(kind: str, request: pytest.FixtureRequest) -> None:
    recipe, (train, validation, test) = (BY_DENSITY, CLASSES) if kind == "by_density" else (BY_LAM, NUMBERS)
    path: Path = request.getfixturevalue(kind)
    assert [point.index for point, _ in path] == list(range(recipe.grid.points))
    for point, state in path:
        model = (classifier if kind == "by_density" else regressor)().eval()
        model.load_state_dict(state)
        weights = weights_of(model)
        zeros, count = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
        assert (point.sparsity, point.nonzero) == (zeros / count, count - zeros)
        for (x, y), found in ((validation, point.validation), (test, point.test)):
            with torch.no_grad():
                outputs = model(x)
            assert found is not None
            assert found.loss == pytest.approx(recipe.loss(outputs, y).item(), rel=1e-6)
            wrong = None if y.is_floating_point() else (outputs.argmax(1) != y).double().mean().item()
            assert found.error == (wrong if wrong is None else pytest.approx(wrong, abs=1e-12))
        assert point.spread == pytest.approx(spread_of(model, recipe, validation), rel=1e-4)
        recipe.loss(model(train[0]), train[1]).backward()
        if point.index:
            w, grad = (torch.cat([t.flatten() for t in part]) for part in (weights, [p.grad for p in weights]))
            lam = point.lam
            far = torch.where(w == 0, (grad.abs() - lam).clamp_min(0), (grad + lam * w.sign()).abs()) / lam
            assert point.stationarity is not None
            assert point.stationarity.max == pytest.approx(far.max().item(), rel=1e-3)
            assert point.stationarity.mean == pytest.approx(far.mean().item(), rel=1e-3)
        else:
            assert point.stationarity is None
        assert point.seconds > 0


def spread_of(model: nn.Module, recipe: Recipe, rows: Rows) -> float:
    """The spread of an error counts one more right and one more wrong row; of a loss, it comes from twenty parts."""
    x, y = rows
    with torch.no_grad():
        outputs = model(x)
    if not y.is_floating_point():
        share = (int((outputs.argmax(1) != y).sum()) + 1) / (len(y) + 2)
        return math.sqrt(share * (1 - share) / len(y))
    size = math.ceil(len(y) / 20)
    losses = [recipe.loss(outputs[i : i + size], y[i : i + size]).item() for i in range(0, len(y), size)]
    return float(np.std(losses, ddof=1)) / math.sqrt(len(losses))


def test_a_path_goes_from_dense_to_sparse(by_density: Path) -> None:
    first, *sparse = points = [point for point, _ in by_density]
    assert (first.lam, first.sparsity, first.epochs) == (0.0, 0.0, BY_DENSITY.dense.epochs)
    assert (sparse[0].epochs, sparse[0].tries) == (40, 1)  # the first one searches for λ
    assert [point.epochs for point in sparse[1:]] == [10 * point.tries for point in sparse[1:]]
    assert sum(point.tries - 1 for point in sparse) <= BY_DENSITY.grid.points
    zeros = [point.sparsity for point in points]
    assert zeros == sorted(zeros)
    assert sparse[0].sparsity == pytest.approx(0.5, abs=0.1)
    assert sparse[-1].sparsity == pytest.approx(0.9, abs=0.06)
    assert 0 < sparse[0].lam < sparse[-1].lam


def test_by_lam_the_points_have_the_given_ones(by_lam: Path) -> None:
    assert [point.lam for point, _ in by_lam] == [0.0, *BY_LAM.grid.strengths]
    assert (by_lam[1][0].lam, by_lam[-1][0].lam) == (0.01, 0.08)
    assert [point.epochs for point, _ in by_lam] == [8, 4, 4, 4]


def test_every_group_keeps_its_own_share_of_lam() -> None:
    seen = []
    rules = [tl.Rule("0.*", tl.L1(), scale=0.5), tl.Rule("2.*", tl.L1())]
    recipe = replace(
        recipe_of(Grid(3, lams=(0.01, 0.02)), MSE, (1, 1)), groups=lambda m: tl.param_groups(m, rules, lam=1.0)
    )

    def watch(index: int, trainer: Trainer) -> Any:
        seen.append([group["lam"] for group in trainer.optimizer.param_groups[:2]])
        return lambda step: None

    points = list(follow(regressor(), recipe, NUMBERS[0], watch=watch))
    assert seen == [[0.0, 0.0], [0.005, 0.01], [0.01, 0.02]]
    assert [point.lam for point in points] == [0.0, 0.01, 0.02]
    assert all(point.validation is point.test is point.spread is point.badness is None for point in points)


@pytest.mark.parametrize("theta", [None, 0.1])
def test_a_path_is_a_training_after_another_each_from_the_weights_before(theta: float | None) -> None:
    """A path by hand agrees to the last bit, with another seed and a new optimizer for each point."""
    recipe = replace(BY_LAM, theta=theta, grid=Grid(3, lams=(0.01, 0.08)))
    starts: list[State] = []
    told: list[Step] = []

    def watch(index: int, trainer: Trainer) -> Any:
        starts.append(state_of(trainer.model))
        return told.append

    model = regressor()
    begin = state_of(model)
    path = followed(model, recipe, *NUMBERS, watch=watch)
    assert all(same(a, b) for a, b in zip(starts, [begin, *(state for _, state in path[:-1])], strict=True))
    assert [step.step for step in told] == [*range(1, 49), *range(1, 25), *range(1, 25)]  # six an epoch

    by_hand = regressor()
    for index, (lam, epochs) in enumerate(((0.0, 8), (0.01, 4), (0.08, 4))):
        optimizer = tl.ProxAdam(tl.param_groups(by_hand, tl.L1(), lam=lam), lr=0.02)
        trainer = Trainer(by_hand, optimizer, MSE, NUMBERS[0], Plan(epochs, batch_size=20, seed=3 + index))
        if index and theta is not None:
            trainer.controls.append(tl.Reweighted(optimizer, theta))
        for _ in range(epochs):
            trainer.run_epoch()
        assert same(state_of(by_hand), path[index][1])


def linear_rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 15))
    y = X @ np.r_[3.0, -2.0, 1.5, 1.0, -0.5, np.zeros(10)] + rng.normal(size=100)
    return X - X.mean(0), y - y.mean()


def full_batch(X: np.ndarray, lams: tuple[float, float], **more: Any) -> Recipe:
    plan = Plan(120, batch_size=len(X), schedule="constant")
    rate = 1 / (2 * np.linalg.eigvalsh(X.T @ X / len(X)).max())  # 1/L of the mean squared error
    recipe = recipe_of(Grid(8, lams=lams), MSE, **more)
    return replace(recipe, optimizer=lambda groups: tl.ProxSGD(groups, lr=rate), dense=plan, each=plan)


def test_on_a_linear_model_the_path_is_scikit_learn_s() -> None:
    """Its α is half of λ, for it halves the squared error."""
    X, y = linear_rows()
    recipe = full_batch(X, (0.1, 6.0))
    model = nn.Linear(15, 1).double()
    dense, *sparse = followed(model, recipe, (torch.from_numpy(X), torch.from_numpy(y)[:, None]))
    lams = np.array(recipe.grid.strengths)
    _, expected, _ = lasso_path(X, y, alphas=lams[::-1] / 2, tol=1e-12)

    def objective(w: np.ndarray, lam: float) -> float:
        return float(((y - X @ w) ** 2).mean() + lam * np.abs(w).sum())

    sizes = set()
    for (point, state), lam, coefficients in zip(sparse, lams, expected.T[::-1], strict=True):
        w = state["weight"].numpy()[0]
        assert ((w != 0) == (coefficients != 0)).all()
        assert objective(w, lam) == pytest.approx(objective(coefficients, lam), rel=1e-4)
        assert np.allclose(w, coefficients, atol=1e-6)
        assert point.stationarity is not None
        assert point.stationarity.max < 1e-6
        sizes.add(point.nonzero)
    assert len(sizes) > 4
    assert np.allclose(dense[1]["weight"].numpy()[0], np.linalg.lstsq(X, y, rcond=None)[0], atol=1e-6)


def test_a_reweighted_path_s_points_are_stationary_for_the_log_sum_penalty() -> None:
    X, y = linear_rows()
    theta = 0.2
    rows = torch.from_numpy(X), torch.from_numpy(y)[:, None]
    _, *plain = followed(nn.Linear(15, 1).double(), full_batch(X, (0.1, 3.0)), rows)
    _, *path = followed(nn.Linear(15, 1).double(), full_batch(X, (0.1, 3.0), theta=theta), rows)
    for (point, state), (_, shrunk) in zip(path, plain, strict=True):
        w = state["weight"].numpy()[0]
        gradient = -2 * X.T @ (y - X @ w) / len(y)
        assert np.allclose(
            gradient[w != 0], -point.lam * theta / (np.abs(w) + theta)[w != 0] * np.sign(w[w != 0]), atol=1e-5
        )
        assert (np.abs(gradient[w == 0]) <= point.lam + 1e-9).all()
        assert point.stationarity is not None
        assert point.stationarity.max < 1e-5
        assert np.abs(w).max() > np.abs(shrunk["weight"].numpy()).max()  # large weights are shrunk less


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_resumed_path_is_the_same_to_the_last_bit(by_density: Path, cut: int) -> None:
    points = [point for point, _ in by_density]
    model = classifier()
    model.load_state_dict(by_density[cut - 1][1])
    torch.manual_seed(99)  # what others draw does not matter
    rest = followed(model, BY_DENSITY, *CLASSES, done=points[:cut])
    assert untimed([point for point, _ in rest]) == untimed(points[cut:])
    assert all(same(state, whole) for (_, state), (_, whole) in zip(rest, by_density[cut:], strict=True))


def test_a_path_ends_where_its_model_collapses() -> None:
    recipe = recipe_of(Grid(5, lams=(0.01, 10.0)), epochs=(8, 2))
    points = list(follow(classifier(), recipe, *CLASSES))
    assert 1 < len(points) < 5
    assert [collapsed(points[:k], recipe, CLASSES[1]) for k in range(len(points) + 1)] == [False] * len(points) + [True]
    model = classifier()
    assert list(follow(model, recipe, *CLASSES, done=points)) == []
    assert same(state_of(model), state_of(classifier()))
    assert len(list(follow(model, replace(recipe, dense=replace(recipe.dense, epochs=1)), CLASSES[0]))) == 5


def test_a_loss_that_is_not_finite_ends_it() -> None:
    recipe = replace(BY_LAM, optimizer=lambda groups: tl.ProxSGD(groups, lr=1e20))
    with pytest.raises(FloatingPointError, match="at step 2"):
        list(follow(regressor(), recipe, *NUMBERS))


def test_the_rate_grows_from_point_to_point():
    rates = []

    def watch(index: int, trainer: Trainer) -> Any:
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return lambda step: None

    recipe = recipe_of(Grid(3, lams=(0.01, 0.1)), epochs=(1, 1), lr_growth=4.0)
    list(follow(classifier(), recipe, rows_of(60, 0, classes=True), watch=watch))
    assert rates == pytest.approx([0.02, 0.04, 0.08])


def test_a_cold_point_is_trained_from_the_initial_weights_for_as_long_as_the_dense_model() -> None:
    """So it depends on no other point; the dense one is that of the path."""
    recipe = recipe_of(Grid(3, lams=(0.01, 0.2)))
    models = [classifier() for _ in range(3)]
    points = [train_alone(models[index], recipe, index, *CLASSES) for index in (0, 1, 2)]
    assert [point.index for point in points] == [0, 1, 2]
    assert [point.lam for point in points] == [0.0, 0.01, 0.2]
    assert [point.epochs for point in points] == [8, 8, 8]
    assert 0 == points[0].sparsity < points[1].sparsity < points[2].sparsity
    [dense, warm] = followed(classifier(), replace(recipe, grid=Grid(2, lams=(0.01, 0.2))), *CLASSES)
    assert same(dense[1], state_of(models[0]))
    assert untimed([dense[0]]) == untimed(points[:1])
    assert not same(warm[1], state_of(models[2]))
    again = classifier()
    assert untimed([train_alone(again, recipe, 2, *CLASSES)]) == untimed(points[2:])
    assert same(state_of(again), state_of(models[2]))
    with pytest.raises(ValueError, match="index must be from 0 to 2; got 3"):
        train_alone(again, recipe, 3, *CLASSES)


def test_a_cold_point_of_a_density_meets_it() -> None:
    recipe = recipe_of(Grid(4, sparsest=0.9), epochs=(40, 10), lam=1e-3)
    for index, wanted in ((1, 0.5), (3, 0.9)):
        assert train_alone(classifier(), recipe, index, *CLASSES).sparsity == pytest.approx(wanted, abs=0.06)


def test_the_losses_of_a_point_are_those_of_its_epochs(by_density: Path) -> None:
    points = [point for point, _ in by_density]
    for point in points:
        assert 0 < len(point.losses) <= point.epochs
        assert all(loss > 0 for loss in point.losses)
    assert points[0].losses[-1] < points[0].losses[0]
