"""Follow a path: train each point from the weights of the point before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from torchlasso.control import Hold, Reweighted, TargetSparsity
from torchlasso.control.steering import ELASTICITY
from torchlasso.diagnostics.stationarity import is_penalised, stationarity
from torchlasso.optim import Proximal
from torchlasso.path.grid import Grid
from torchlasso.path.points import Point
from torchlasso.selection import Group
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.trainer import (
    Evaluation,
    Loss,
    Plan,
    Step,
    Trainer,
    evaluate,
    evaluate_outputs,
    full_gradient,
    outputs_of,
    sparsity,
)

LabelledRows = tuple[Tensor, Tensor]
PointWatch = Callable[[int, Trainer], Callable[[Step], None]]
LOWEST_POWER, HIGHEST_POWER = 0.4, 2.0  # bounds for p, if the odds of a nonzero weight are proportional to λ^-p
LARGEST_STEP = 10.0  # the largest factor on λ from one point to the next
CHUNKS = 20  # parts of the validation rows, whose spread gives the standard error of the mean loss


@dataclass(frozen=True)
class Recipe:
    """The training of the points of a path.

    Args:
        grid: the grid of the points.
        groups: model ↦ its parameter groups with λ = 1 (:func:`torchlasso.param_groups`).
        optimizer: groups ↦ a proximal optimizer, with the initial learning rate of every point.
        loss: (outputs, targets) ↦ mean loss.
        dense: the length and order of training for the dense model. If the points are spaced by density, also for the
            first sparse point, whose λ is found by :class:`torchlasso.TargetSparsity`.
        each: the length and order of training for every other point.
        theta: the parameter of the reweighting (:class:`torchlasso.Reweighted`); None for no reweighting.
        hold: the share of each point's steps in which the zeros are held (:class:`torchlasso.Hold`); None for none.
        lam: the start of the search for λ, if the points are spaced by density.
        lr_growth: the learning rate of the last point relative to the dense model's; it grows geometrically from point
            to point. Sparse models tolerate, and need, a higher rate than dense ones.
        collapse: the path ends after a point whose validation error is this share of the way from the best point's
            error to the error of a constant prediction.
        regularisation: changes to the training rows of each batch, and another loss to minimise.
    """

    grid: Grid
    groups: Callable[[nn.Module], list[Group]]
    optimizer: Callable[[list[Group]], Proximal]
    loss: Loss
    dense: Plan
    each: Plan
    theta: float | None = None
    hold: float | None = None
    lam: float = 1e-4
    lr_growth: float = 1.0
    collapse: float = 0.25
    regularisation: Regularisation = Regularisation()


def follow(
    model: nn.Module,
    recipe: Recipe,
    train: LabelledRows,
    validation: LabelledRows | None = None,
    test: LabelledRows | None = None,
    done: Sequence[Point] = (),
    watch: PointWatch | None = None,
) -> Iterator[Point]:
    """Train ``model`` along the path, and yield each point while the model has its weights.

    Args:
        model: the model, trained in place from its current weights.
        recipe: the training of the points.
        train, validation, test: inputs and targets.
        done: the points of an earlier call, to resume the path; ``model`` must have the weights of the last one.
        watch: called at the start of each point's training; the function that it returns is called after every step.

    Raises:
        FloatingPointError: the loss became infinite or NaN.

    Examples:
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
    train: LabelledRows,
    validation: LabelledRows | None,
    test: LabelledRows | None,
    watch: PointWatch | None,
) -> Point:
    index = len(before)
    searching = index == 1 and recipe.grid.lams is None
    plan = recipe.dense if index == 0 or searching else replace(recipe.each, seed=(recipe.each.seed + index) % 2**63)
    optimizer = recipe.optimizer(recipe.groups(model))
    for group in optimizer.param_groups:
        group["lr"] *= recipe.lr_growth ** (index / (recipe.grid.points - 1))
    trainer = Trainer(model, optimizer, recipe.loss, train, plan)
    trainer.regularisation = recipe.regularisation
    hold = Hold(optimizer, trainer.steps, recipe.hold) if index and recipe.hold is not None else None
    if index == 0:
        _strengthen(optimizer, 0.0)
    elif recipe.grid.lams is not None:
        _strengthen(optimizer, recipe.grid.strengths[index - 1])
    else:
        latent = all(group["form"] == "latent" for group in optimizer.param_groups)
        _strengthen(optimizer, recipe.lam if searching or latent else _next_lam(before, recipe.grid))
        if searching or latent:  # the later points extrapolate from here, unless each finds its own
            target, steps = recipe.grid.targets[index - 1], trainer.steps if hold is None else hold.start
            trainer.controls.append(TargetSparsity(optimizer, target, steps=steps, tolerance=1.0))
    if index and recipe.theta is not None:
        trainer.controls.append(Reweighted(optimizer, recipe.theta))
    if hold is not None:
        trainer.controls.append(hold)
    watch_step = None if watch is None else watch(index, trainer)
    for _ in range(plan.epochs):
        trainer.run_epoch(watch_step)
    groups = optimizer.penalised_groups()
    penalised = sum(p.numel() for group in groups for p in group["params"])
    zeros = sparsity(groups)
    found = None if validation is None else evaluate(model, recipe.loss, *validation)
    lam = max(group["lam"] for group in groups) if hold is None else max(hold.before)
    full_gradient(model, recipe.regularisation.loss or recipe.loss, *train)
    return Point(
        index=index,
        lam=lam,
        sparsity=zeros,
        nonzero=round((1 - zeros) * penalised),
        validation=found,
        test=None if test is None else evaluate(model, recipe.loss, *test),
        spread=None if validation is None or found is None else _spread(model, recipe.loss, found, *validation),
        stationarity=stationarity(groups) if is_penalised(groups) else None,
        epochs=plan.epochs,
        seconds=trainer.seconds,
    )


def _strengthen(optimizer: Proximal, lam: float) -> None:
    """Multiply the λ of every group, relative to λ = 1, by ``lam``."""
    for group in optimizer.param_groups:
        group["lam"] *= lam


def _next_lam(before: Sequence[Point], grid: Grid) -> float:
    """Extrapolate λ of the next point: the odds of a nonzero weight are about a power of 1/λ.

    The remaining points divide the way to the last one evenly. The power is fitted to the last two points, within
    bounds, since a point may not have converged.
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
    way = (odds[-1] - wanted) / (grid.points - len(before))  # below 0 if the last point overshot
    return sparse[-1].lam * min(math.exp(way / power), LARGEST_STEP)


@torch.no_grad()
def _spread(model: nn.Module, loss: Loss, found: Evaluation, x: Tensor, y: Tensor) -> float:
    """Return the standard error of the error, which is binomial, or of the mean loss."""
    if found.error is not None:
        share = (found.error * len(y) + 1) / (
            len(y) + 2
        )  # smoothed: zero errors in a few rows do not mean an error of zero
        return math.sqrt(share * (1 - share) / len(y))
    outputs = outputs_of(model, x)
    chunks = zip(outputs.chunk(CHUNKS), y.chunk(CHUNKS), strict=True)
    losses = torch.tensor([evaluate_outputs(some, loss, wanted).loss for some, wanted in chunks])
    spread = float(losses.std()) if len(losses) > 1 else 0.0
    return spread / math.sqrt(len(losses))


def collapsed(points: Sequence[Point], recipe: Recipe, validation: LabelledRows | None) -> bool:
    """Return whether the last point is too bad to continue the path."""
    if validation is None or not points:
        return False
    known = [point.badness for point in points if point.badness is not None]
    best, y = min(known), validation[1]
    if y.is_floating_point():
        mean = y.mean(dim=0, keepdim=True).expand_as(y)
        constant = evaluate_outputs(mean, recipe.loss, y).loss
    else:
        constant = 1 - int(y.bincount().max()) / len(y)
    return bool(known[-1] > best + recipe.collapse * max(0.0, constant - best))
