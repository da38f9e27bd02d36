"""The regularization path: a model trained from dense to sparse, each point from the weights of the one before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from torchlasso.certify import Stationarity, stationarity
from torchlasso.control import Reweighted, TargetSparsity
from torchlasso.control.steering import ELASTICITY
from torchlasso.names import unknown
from torchlasso.optim import Proximal
from torchlasso.selection import Group
from torchlasso.training import (
    Evaluation,
    Loss,
    Plan,
    Step,
    Trainer,
    evaluate,
    full_gradient,
    judge,
    outputs_of,
    sparsity,
)

Rows = tuple[Tensor, Tensor]
Watch = Callable[[int, Trainer], Callable[[Step], None]]
LOWEST_POWER, HIGHEST_POWER = 0.4, 2.0  # of 1/λ by which what is left goes
CHUNKS = 20  # of the validation rows, from whose spread the standard error of their mean loss is taken
RULES = ("best", "one-se", "within")


@dataclass(frozen=True)
class Point:
    """One point of a path, and how good its model is.

    Attributes:
        index: 0 for the dense model, then 1, 2, ….
        lam: λ, as it was at the end of its training.
        sparsity, nonzero: zeros over penalised weights, and how many are left.
        validation, test: on these rows; None where there are none.
        spread: the standard error of the validation error (for numbers of the validation loss).
        stationarity: on the whole training set, in units of λ; None for the dense model.
        epochs, seconds: of its own training.
    """

    index: int
    lam: float
    sparsity: float
    nonzero: int
    validation: Evaluation | None
    test: Evaluation | None
    spread: float | None
    stationarity: Stationarity | None
    epochs: int
    seconds: float

    @property
    def badness(self) -> float | None:
        """The validation error, for numbers the validation loss: what a choice goes by."""
        return None if self.validation is None else badness(self.validation)


def badness(found: Evaluation) -> float:
    """The error, where there are classes; else the loss."""
    return found.loss if found.error is None else found.error


@dataclass(frozen=True)
class Grid:
    """Where the points of a path are, the dense one apart.

    Args:
        points: how many, the dense one included; at least 2.
        sparsest: the share of zeros of the last, where they are spaced by density.
        densest: that of the first after the dense one.
        lams: λ of the first and the last instead, where they are spaced by λ.

    The points are spaced evenly on a logarithmic scale: of density, the share of weights that is left, or of λ. By
    density they are where they should be only about, as each point's λ follows from what λ did before.

    Example:
        >>> [round(zeros, 4) for zeros in Grid(4, sparsest=0.995).targets]
        [0.5, 0.95, 0.995]
        >>> Grid(4, lams=(1e-4, 1e-2)).strengths
        [0.0001, 0.001, 0.01]
    """

    points: int = 20
    sparsest: float = 0.995
    densest: float = 0.5
    lams: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"a path has at least 2 points, the dense one and a sparse one; got {self.points}")
        if not 0 < self.densest < self.sparsest < 1:
            raise ValueError(
                f"the sparsest point must have more zeros than the first sparse one, {self.densest:g}, and fewer than "
                f"all; got {self.sparsest!r}"
            )
        if self.lams is not None and not 0 < self.lams[0] < self.lams[1] < math.inf:
            raise ValueError(f"the two λ of a path must be above 0 and rise; got {self.lams[0]:g} and {self.lams[1]:g}")

    @property
    def targets(self) -> list[float]:
        """The share of zeros of each sparse point, about."""
        return [1 - left for left in _evenly(1 - self.densest, 1 - self.sparsest, self.points - 1)]

    @property
    def strengths(self) -> list[float]:
        """λ of each sparse point."""
        if self.lams is None:
            raise ValueError("the grid is spaced by density: λ of its points comes out of the training")
        return _evenly(*self.lams, self.points - 1)


def _evenly(first: float, last: float, n: int) -> list[float]:
    """``n`` numbers, evenly spaced on a logarithmic scale; the last alone, if it is one."""
    if n == 1:
        return [last]
    return [float(f"{first * (last / first) ** (i / (n - 1)):.12g}") for i in range(n)]


@dataclass(frozen=True)
class Recipe:
    """How the points of a path are trained.

    Args:
        grid: where they are.
        groups: model ↦ its parameter groups with λ = 1 (:func:`torchlasso.param_groups`).
        optimizer: groups ↦ a proximal optimizer, with the learning rate at the start of every point.
        loss: (outputs, targets) ↦ mean loss.
        dense: how long the dense model is trained, and in what order of rows; where the points are spaced by density
            also the first sparse one, whose λ is found by :class:`torchlasso.TargetSparsity`.
        each: the same for every other point.
        theta: the penalty is reweighted by it (:class:`torchlasso.Reweighted`); None: it is not.
        lam: where the search for λ starts, where the points are spaced by density.
        collapse: the path ends after a point whose validation error is this share of the way from the best point's to
            that of a constant prediction.
    """

    grid: Grid
    groups: Callable[[nn.Module], list[Group]]
    optimizer: Callable[[list[Group]], Proximal]
    loss: Loss
    dense: Plan
    each: Plan
    theta: float | None = None
    lam: float = 1e-4
    collapse: float = 0.25


def follow(
    model: nn.Module,
    recipe: Recipe,
    train: Rows,
    validation: Rows | None = None,
    test: Rows | None = None,
    done: Sequence[Point] = (),
    watch: Watch | None = None,
) -> Iterator[Point]:
    """Train ``model`` along the path; after each point that is yielded it has that point's weights.

    Args:
        model: trained in place, from the weights that it has.
        recipe: how.
        train, validation, test: inputs and targets.
        done: the points of an earlier call, of whose last one ``model`` has the weights: the path goes on there.
        watch: called at the start of each point's training; what it returns is called after every step.

    Raises:
        FloatingPointError: the loss became infinite or NaN.

    Example:
        >>> import torchlasso as tl
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> x = torch.randn(200, 10)
        >>> rows = (x, (x[:, :2].sum(dim=1, keepdim=True) + 0.1 * torch.randn(200, 1)))
        >>> recipe = Recipe(
        ...     Grid(3, lams=(0.1, 0.5)),
        ...     groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        ...     optimizer=lambda groups: tl.ProxAdam(groups, lr=0.05),
        ...     loss=nn.functional.mse_loss,
        ...     dense=Plan(10, batch_size=20),
        ...     each=Plan(10, batch_size=20),
        ... )
        >>> [point.nonzero for point in follow(nn.Linear(10, 1), recipe, rows)]
        [10, 2, 2]
    """
    points = list(done)
    while len(points) < recipe.grid.points and not collapsed(points, recipe, validation):
        point = _fit(model, recipe, points, train, validation, test, watch)
        points.append(point)
        yield point


def _fit(
    model: nn.Module,
    recipe: Recipe,
    before: Sequence[Point],
    train: Rows,
    validation: Rows | None,
    test: Rows | None,
    watch: Watch | None,
) -> Point:
    index = len(before)
    searching = index == 1 and recipe.grid.lams is None
    plan = recipe.dense if index == 0 or searching else replace(recipe.each, seed=recipe.each.seed + index)
    optimizer = recipe.optimizer(recipe.groups(model))
    trainer = Trainer(model, optimizer, recipe.loss, train, plan)
    if index == 0:
        _strengthen(optimizer, 0.0)
    elif recipe.grid.lams is not None:
        _strengthen(optimizer, recipe.grid.strengths[index - 1])
    else:
        _strengthen(optimizer, recipe.lam if searching else _next_lam(before, recipe.grid))
        if searching:  # from here on it is known what λ does
            target = recipe.grid.targets[0]
            trainer.controls.append(TargetSparsity(optimizer, target, steps=trainer.steps, tolerance=1.0))
    if index and recipe.theta is not None:
        trainer.controls.append(Reweighted(optimizer, recipe.theta))
    watch_step = None if watch is None else watch(index, trainer)
    for _ in range(plan.epochs):
        trainer.run_epoch(watch_step)
    groups = optimizer.penalised_groups()
    penalised = sum(p.numel() for group in groups for p in group["params"])
    zeros = sparsity(groups)
    found = None if validation is None else evaluate(model, recipe.loss, *validation)
    lam = max(group["lam"] for group in groups)
    full_gradient(model, recipe.loss, *train)
    return Point(
        index=index,
        lam=lam,
        sparsity=zeros,
        nonzero=round((1 - zeros) * penalised),
        validation=found,
        test=None if test is None else evaluate(model, recipe.loss, *test),
        spread=None if validation is None or found is None else _spread(model, recipe.loss, found, *validation),
        stationarity=stationarity(groups) if lam else None,
        epochs=plan.epochs,
        seconds=trainer.seconds,
    )


def _strengthen(optimizer: Proximal, lam: float) -> None:
    """Let λ of every group be its own, of λ = 1, times ``lam``."""
    for group in optimizer.param_groups:
        group["lam"] *= lam


def _next_lam(before: Sequence[Point], grid: Grid) -> float:
    """λ of the next point: what is left goes as a power of 1/λ, and the points to come share the way to the last.

    The power is that between the last two points, within bounds, for a point may not have come to rest.
    """
    sparse = [point for point in before if point.lam and 0 < point.sparsity < 1]
    if not sparse:  # λ was so small that nothing became zero, or so large that everything did
        return before[-1].lam * (10.0 if before[-1].sparsity == 0 else 0.1)
    odds = [math.log((1 - point.sparsity) / point.sparsity) for point in sparse]
    power = ELASTICITY
    if len(sparse) > 1 and sparse[-1].lam > sparse[-2].lam:
        power = (odds[-2] - odds[-1]) / math.log(sparse[-1].lam / sparse[-2].lam)
    power = min(max(power, LOWEST_POWER), HIGHEST_POWER)
    wanted = math.log((1 - grid.sparsest) / grid.sparsest)
    way = max(0.0, odds[-1] - wanted) / (grid.points - len(before))
    return sparse[-1].lam * math.exp(way / power)


@torch.no_grad()
def _spread(model: nn.Module, loss: Loss, found: Evaluation, x: Tensor, y: Tensor) -> float:
    """The standard error of the error, which is binomial, or of the mean loss."""
    if found.error is not None:
        share = (found.error * len(y) + 1) / (len(y) + 2)  # no error in a few rows does not mean that there are none
        return math.sqrt(share * (1 - share) / len(y))
    outputs = outputs_of(model, x)
    chunks = zip(outputs.chunk(CHUNKS), y.chunk(CHUNKS), strict=True)
    losses = torch.tensor([judge(some, loss, wanted).loss for some, wanted in chunks])
    spread = float(losses.std()) if len(losses) > 1 else 0.0
    return spread / math.sqrt(len(losses))


def collapsed(points: Sequence[Point], recipe: Recipe, validation: Rows | None) -> bool:
    """Whether the last point is so bad that going on makes no sense."""
    if validation is None or not points:
        return False
    known = [point.badness for point in points if point.badness is not None]
    best, y = min(known), validation[1]
    if y.is_floating_point():
        mean = y.mean(dim=0, keepdim=True).expand_as(y)
        constant = judge(mean, recipe.loss, y).loss
    else:
        constant = 1 - int(y.bincount().max()) / len(y)
    return bool(known[-1] > best + recipe.collapse * max(0.0, constant - best))


def choose(points: Sequence[Point], rule: str = "one-se", tolerance: float = 0.0) -> Point:
    """The point of a path that is to be used.

    Args:
        points: with validation figures.
        rule: ``"best"``: the least validation error. ``"one-se"``: the sparsest within one standard error of the best
            (Breiman, Friedman, Olshen and Stone 1984). ``"within"``: the sparsest within ``tolerance`` of the best.
        tolerance: as a fraction of rows, for numbers as a loss.

    Raises:
        ValueError: an unknown rule, a tolerance below 0, no points, or points without validation figures.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number of at least 0; got {tolerance!r}")
    known = [(point.badness, point) for point in points if point.badness is not None]
    if not known or len(known) < len(points):
        raise ValueError("a point of a path is chosen by its validation figures; give the path validation rows")
    least, best = min(known, key=lambda entry: entry[0])
    allowed = {"best": 0.0, "one-se": best.spread or 0.0, "within": tolerance}[rule]
    return max((point for value, point in known if value <= least + allowed), key=lambda point: point.sparsity)


def pooled(points: Sequence[Point], folds: Sequence[Sequence[Point]]) -> list[Point]:
    """The points with the validation figures of cross-validation: means over the folds, and their standard errors.

    Points that some fold did not come to, because its path ended sooner, are left out.
    """
    found = []
    for point, *others in zip(points, *folds, strict=False):
        evaluations = [other.validation for other in others if other.validation is not None]
        losses, values = [e.loss for e in evaluations], [badness(e) for e in evaluations]
        error = None if evaluations[0].error is None else _mean(values)
        mean = Evaluation(_mean(losses), None if error is None else 1 - error, error)
        spread = float(torch.tensor(values, dtype=torch.float64).std() / math.sqrt(len(values)))
        found.append(replace(point, validation=mean, spread=spread))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def folds_of(n: int, k: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """The rows to train on and those to judge on, of each of ``k`` folds of ``n`` rows in random order.

    Example:
        >>> [held.tolist() for _, held in folds_of(4, 2, seed=0)]
        [[0, 1], [3, 2]]
    """
    if not 2 <= k <= n:
        raise ValueError(f"folds must be at least 2 and at most the {n:,} rows; got {k}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(k)
    return [(torch.cat([other for other in parts if other is not part]), part) for part in parts]
