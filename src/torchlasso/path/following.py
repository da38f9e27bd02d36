"""Follow a path: train each point from the weights of the point before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import Tensor, nn

from torchlasso.control import Hold, Reweighted, TargetSparsity
from torchlasso.diagnostics.stationarity import is_penalised, stationarity
from torchlasso.optim import Proximal
from torchlasso.path.grid import Grid
from torchlasso.path.points import Point
from torchlasso.path.search import FINEST, next_lam, search
from torchlasso.path.spreads import standard_error
from torchlasso.selection import Group
from torchlasso.training.evaluation import (
    balanced_error_of_one_answer,
    evaluate,
    evaluate_outputs,
    full_gradient,
)
from torchlasso.training.losses import Loss
from torchlasso.training.plan import Plan
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.rows import InputRows
from torchlasso.training.trainer import Step, Trainer, sparsity

LabelledRows = tuple[InputRows, Tensor]
PointWatch = Callable[[int, Trainer], Callable[[Step], None]]


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
            error to the error of a constant prediction; for classes, the balanced error.
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

    A path that is spaced by density ends no further than where each layer has one weight left.

    Raises:
        FloatingPointError: the loss became infinite or NaN.

    Examples:
        >>> import torch
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
    recipe = replace(recipe, grid=_within_reach(recipe.grid, recipe.groups(model)))
    points, path = list(done), _Path(model, recipe, train, validation, test, watch)
    while len(points) < recipe.grid.points and not collapsed(points, recipe, validation):
        point = path.next_after(points)
        points.append(point)
        yield point


def train_alone(
    model: nn.Module,
    recipe: Recipe,
    index: int,
    train: LabelledRows,
    validation: LabelledRows | None = None,
    test: LabelledRows | None = None,
) -> Point:
    """Train one point of a path from the model's own weights, for as long as the dense model: a cold start.

    Points of a path that are trained like this do not depend on each other. λ of a point is that of the grid, or the
    one that meets its share of zeros.

    Args:
        model: the model, trained in place.
        recipe: the training of the points.
        index: the number of the point; 0 is the dense model.
        train, validation, test: inputs and targets.

    Raises:
        FloatingPointError: the loss became infinite or NaN.
        ValueError: the path has no such point.
    """
    if not 0 <= index < recipe.grid.points:
        raise ValueError(f"index must be from 0 to {recipe.grid.points - 1}; got {index}")
    recipe = replace(recipe, grid=_within_reach(recipe.grid, recipe.groups(model)))
    return _Path(model, recipe, train, validation, test, None).alone(index)


def _within_reach(grid: Grid, groups: Sequence[Group]) -> Grid:
    """Return the grid, ended where each layer has one weight left if it would go further."""
    sizes = [p.numel() for group in groups if group["penalty"] is not None for p in group["params"]]
    most = 1 - (1 + 1e-9) * len(sizes) / max(1, sum(sizes))
    return grid if grid.lams or not grid.densest < most < grid.sparsest else replace(grid, sparsest=most)


@dataclass(frozen=True)
class _Path:
    """The arguments of :func:`follow`, and the training of one point after another."""

    model: nn.Module
    recipe: Recipe
    train: LabelledRows
    validation: LabelledRows | None
    test: LabelledRows | None
    watch: PointWatch | None

    def next_after(self, before: Sequence[Point]) -> Point:
        """Train and measure the next point."""
        index, grid, optimizer = len(before), self.recipe.grid, self._optimizer(len(before))
        if index == 0:
            return self._measured(self._trained(index, optimizer, 0.0, self.recipe.dense), optimizer)
        each = replace(self.recipe.each, seed=(self.recipe.each.seed + index) % 2**63)
        if grid.lams is not None:
            return self._measured(self._trained(index, optimizer, grid.strengths[index - 1], each), optimizer)
        if all(group["form"] == "latent" for group in optimizer.param_groups):  # it meets any target
            plan = self.recipe.dense if index == 1 else each
            return self._measured(self._trained(index, optimizer, None, plan), optimizer)
        return self._searched(before, optimizer, each)

    def alone(self, index: int) -> Point:
        """Train and measure a point without the points before it."""
        optimizer, grid = self._optimizer(index), self.recipe.grid
        plan = replace(self.recipe.dense, seed=(self.recipe.dense.seed + index) % 2**63)
        lam = 0.0 if index == 0 else None if grid.lams is None else grid.strengths[index - 1]
        return self._measured(self._trained(index, optimizer, lam, plan), optimizer)

    def _searched(self, before: Sequence[Point], optimizer: Proximal, each: Plan) -> Point:
        """Train from the same weights with one λ after another, and keep the point nearest to the wanted zeros."""
        index, found, start = len(before), search(before, self.recipe.grid), deepcopy(self.model.state_dict())
        kept, lam, discarded = (start, optimizer), self.recipe.lam, []
        if index == 1:
            first = self._trained(index, optimizer, None, self.recipe.dense)
            if abs(found.distance(first)) <= FINEST and not self._ends_with([*before, first]):
                return self._measured(first, optimizer)
            discarded = [first]  # its λ was still changing, and says nothing about the λ of a whole training
            optimizer = self._again(start, index)
        else:
            lam = next_lam(before, self.recipe.grid)
        while True:
            point = self._trained(index, optimizer, found.lam or lam, each)
            found.add(point, is_ruined=self._ends_with([*before, point]))
            if found.best is found.tries[-1]:
                kept = deepcopy(self.model.state_dict()), optimizer
            if found.is_over:
                break
            optimizer = self._again(start, index)
        weights, optimizer = kept
        self.model.load_state_dict(weights)
        points = [*discarded, *(t.point for t in found.tries)]
        return replace(
            self._measured(found.best.point, optimizer),
            epochs=sum(point.epochs for point in points),
            seconds=sum(point.seconds for point in points),
            tries=len(points),
            miss=found.miss,
        )

    def _again(self, start: Mapping[str, Tensor], index: int) -> Proximal:
        """Go back to the weights before the point, and make another optimizer."""
        self.model.load_state_dict(start)
        return self._optimizer(index)

    def _ends_with(self, points: Sequence[Point]) -> bool:
        return collapsed(points, self.recipe, self.validation)

    def _optimizer(self, index: int) -> Proximal:
        """Make the optimizer of a point, with λ = 1."""
        optimizer = self.recipe.optimizer(self.recipe.groups(self.model))
        for group in optimizer.param_groups:
            group["lr"] *= self.recipe.lr_growth ** (index / (self.recipe.grid.points - 1))
        return optimizer

    def _trained(self, index: int, optimizer: Proximal, lam: float | None, plan: Plan) -> Point:
        """Train a point with ``lam``; None: with the λ that meets the target of the grid."""
        model, recipe = self.model, self.recipe
        trainer = Trainer(model, optimizer, recipe.loss, self.train, plan)
        trainer.regularisation = recipe.regularisation
        hold = Hold(optimizer, trainer.steps, recipe.hold) if index and recipe.hold is not None else None
        for group in optimizer.param_groups:
            group["lam"] *= recipe.lam if lam is None else lam
        if lam is None:
            target, steps = recipe.grid.targets[index - 1], trainer.steps if hold is None else hold.start
            trainer.controls.append(TargetSparsity(optimizer, target, steps=steps, tolerance=1.0))
        if index and recipe.theta is not None:
            trainer.controls.append(Reweighted(optimizer, recipe.theta))
        if hold is not None:
            trainer.controls.append(hold)
        watch_step = None if self.watch is None else self.watch(index, trainer)
        losses = tuple(trainer.run_epoch(watch_step) for _ in range(plan.epochs))
        groups = optimizer.penalised_groups()
        penalised = sum(p.numel() for group in groups for p in group["params"])
        zeros = sparsity(groups)
        return Point(
            index=index,
            lam=max(group["lam"] for group in groups) if hold is None else max(hold.before),
            sparsity=zeros,
            nonzero=round((1 - zeros) * penalised),
            validation=None if self.validation is None else evaluate(model, recipe.loss, *self.validation),
            test=None,
            spread=None,
            stationarity=None,
            epochs=plan.epochs,
            seconds=trainer.seconds,
            losses=losses,
        )

    def _measured(self, point: Point, optimizer: Proximal) -> Point:
        """Add the figures that a search for λ does not need, while the model has the weights of the point."""
        model, recipe, groups, found = self.model, self.recipe, optimizer.penalised_groups(), point.validation
        full_gradient(model, recipe.loss, *self.train, recipe.regularisation)
        return replace(
            point,
            test=None if self.test is None else evaluate(model, recipe.loss, *self.test),
            spread=None
            if self.validation is None or found is None
            else standard_error(model, recipe.loss, found, *self.validation),
            stationarity=stationarity(groups) if is_penalised(groups) else None,
        )


def collapsed(points: Sequence[Point], recipe: Recipe, validation: LabelledRows | None) -> bool:
    """Return whether the last point is too bad to continue the path."""
    if validation is None or not points:
        return False
    found, y = [point.validation for point in points if point.validation is not None], validation[1]
    if y.is_floating_point():
        mean = y.mean(dim=0, keepdim=True).expand_as(y)
        known, constant = [each.loss for each in found], evaluate_outputs(mean, recipe.loss, y).loss
    else:
        known = [each.balanced_error for each in found if each.balanced_error is not None]
        constant = balanced_error_of_one_answer(y)
    if not known:  # a path of an earlier version has no balanced errors
        return False
    best = min(known)
    return bool(known[-1] > best + recipe.collapse * max(0.0, constant - best))
