"""The trainings of a path: one from point to point, or many that do not depend on each other.

A path is trained on the training rows, and again on the rows of each fold if it is to be chosen by cross-validation.
With warm starts, each of these is one training; with cold starts, each of their points is. All are kept in the files of
the run as they fall, and none that is there is trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from torchlasso.distributed import processes
from torchlasso.engine import Engine, Workers, WorkersDiedError
from torchlasso.path import Point, Recipe, collapsed, follow, train_alone
from torchlasso.path.following import LabelledRows
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.kept_rows import keep_rows, rows_for
from torchlasso.runs.observer import SILENT, Observer
from torchlasso.runs.path_options import COLD, PathOptions
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.tracking import Tracking
from torchlasso.training.rows import some_rows
from torchlasso.training.trainer import Step, Trainer

FoldNumber = int | None  # None: all training rows


class FoldRows(NamedTuple):
    """The rows on which a fold is trained, by which its points are chosen, and on which they are tested.

    ``weights`` are of the training rows, in the loss; None for the same.
    """

    train: LabelledRows
    validation: LabelledRows | None
    test: LabelledRows | None
    weights: Tensor | None

    def recipe(self, experiment: Experiment, path: PathOptions) -> Recipe:
        """Return the recipe for the points that are trained on these rows."""
        return experiment.recipe(path, self.train, self.weights)


def train_path(
    experiment: Experiment,
    path: PathOptions,
    rows: RowSplits,
    folder: RunFolder,
    engine: Engine,
    observer: Observer,
    tracking: Tracking,
) -> tuple[list[Point], list[list[Point]]]:
    """Train everything of a path that is not trained yet; return its points, and those of each fold.

    Raises:
        FloatingPointError: the loss became infinite or NaN.
        ValueError: the files in the folder are damaged; there are folds or cold starts under torchrun.
        OSError: the processes died again and again, or a file cannot be written.
    """
    if not path.folds and path.start != COLD:
        return follow_fold(experiment, folder, None, rows, observer, tracking), []
    if processes.size() > 1:
        flag = "--folds" if path.folds else f"--start {COLD}"
        raise ValueError(f"{flag} starts its own processes: run it without torchrun")
    folds: list[FoldNumber] = [None, *range(path.folds or 0)]
    waiting = [fold for fold in folds if not _is_done(experiment, path, rows, folder, fold)]
    if path.folds:
        done = sum(fold not in waiting for fold in folds[1:])
        observer.say(f"cross-validation: {path.folds} folds" + (f", {done} done" if done else ""))
    keep_rows(experiment.options, experiment.inputs, rows)  # for trainings in this process
    train = _train_cold if path.start == COLD else _train_warm
    try:
        if waiting:
            with engine.started() as workers:
                for fold in train(experiment, path, folder, waiting, workers):
                    _show(fold, path, folder, observer, tracking)
    except WorkersDiedError as error:
        how = f"torchlasso path --resume --out {folder.path}"
        raise OSError(f"{error}; resume with: {how}") from error
    folder.remove_intermediate()
    return folder.read_points(), [folder.read_points(k) for k in range(path.folds or 0)]


def _show(fold: FoldNumber, path: PathOptions, folder: RunFolder, observer: Observer, tracking: Tracking) -> None:
    if fold is not None:
        observer.say(f"fold {fold + 1}/{path.folds} done")
        return
    for point in folder.read_points():
        observer.point(point, path.points)
        tracking.point(point)


def _train_warm(
    experiment: Experiment, path: PathOptions, folder: RunFolder, waiting: Sequence[FoldNumber], workers: Workers
) -> Iterator[FoldNumber]:
    """Train each fold from point to point, and yield the folds as they are done."""
    for fold, _ in workers.run(follow_fold, waiting, lambda fold: (experiment, folder, fold)):
        yield fold


def _train_cold(
    experiment: Experiment, path: PathOptions, folder: RunFolder, waiting: Sequence[FoldNumber], workers: Workers
) -> Iterator[FoldNumber]:
    """Train each point of each fold by itself, and yield the folds as they are done."""
    left = {fold: {i for i in range(path.points) if folder.read_alone(i, fold) is None} for fold in waiting}
    keys = [(fold, index) for fold in waiting for index in sorted(left[fold])]
    for fold in waiting:
        if not left[fold]:
            folder.gather_alone(path.points, fold)
            yield fold
    for (fold, index), _ in workers.run(train_point, keys, lambda key: (experiment, folder, *key)):
        left[fold].remove(index)
        if not left[fold]:
            folder.gather_alone(path.points, fold)
            yield fold


def follow_fold(
    experiment: Experiment,
    folder: RunFolder,
    fold: FoldNumber,
    rows: RowSplits | None = None,
    observer: Observer = SILENT,
    tracking: Tracking | None = None,
) -> list[Point]:
    """Train the remaining points of a path, or of a fold of it, one after the other, and keep them in the folder.

    Args:
        experiment: the experiment, which is a path.
        folder: the folder of the run.
        fold: the number of the fold, or None.
        rows: the rows of the experiment; None to read them.
        observer: gets the points.
        tracking: gets them too.

    Returns:
        All points.
    """
    path = experiment.options.path or PathOptions()
    found = _rows_of(experiment, path, rows, fold)
    model, points = experiment.build_model(), folder.read_points(fold)
    if fold is not None and points and not folder.has_weights(points[-1].index, fold):
        points = []  # the weights with which it would go on were removed
    if points:
        load_point(model, folder, points[-1].index, fold)
    recipe = found.recipe(experiment, path)
    with observer.path(path.points) as watching:

        def watch(index: int, trainer: Trainer) -> Callable[[Step], None]:
            return watching(index, trainer.steps)

        try:
            for point in follow(model, recipe, *found[:3], points, watch):
                # the weights first: a point counts only if it has weights
                folder.write_weights(point.index, model.state_dict(), fold)
                points.append(point)
                folder.write_points(points, fold)
                if fold is not None and point.index:
                    folder.remove_weights(point.index - 1, fold)
                observer.point(point, path.points)
                if tracking is not None:
                    tracking.point(point)
        except FloatingPointError as error:
            raise _placed(error, len(points), fold) from error
    return points


def train_point(experiment: Experiment, folder: RunFolder, fold: FoldNumber, index: int) -> None:
    """Train a point of a path, or of a fold of it, from the initial weights, and keep it in the folder."""
    if folder.read_alone(index, fold) is not None:
        return  # done by a worker that could not tell, since another one was killed
    path = experiment.options.path or PathOptions()
    found = _rows_of(experiment, path, None, fold)
    model = experiment.build_model()
    try:
        point = train_alone(model, found.recipe(experiment, path), index, *found[:3])
    except FloatingPointError as error:
        raise _placed(error, index, fold) from error
    if fold is None:
        folder.write_weights(index, model.state_dict())
    folder.write_alone(point, fold)


def load_point(model: nn.Module, folder: RunFolder, index: int, fold: FoldNumber = None) -> None:
    """Put the weights of a point into a model.

    Raises:
        ValueError: they are damaged, or of another model.
    """
    try:
        model.load_state_dict(folder.read_weights(index, fold))
    except RuntimeError as error:
        raise ValueError(f"{folder.weights} is damaged or from another run: point {index} does not fit") from error


def _rows_of(experiment: Experiment, path: PathOptions, rows: RowSplits | None, fold: FoldNumber) -> FoldRows:
    """Return the rows of a fold."""
    rows = rows_for(experiment.options)[1] if rows is None else rows
    if fold is None:
        return FoldRows(rows.train, rows.validation if len(rows.validation[0]) else None, rows.test, rows.weights)
    x, y = rows.train
    kept, held = (part.to(x.device) for part in rows.folds(path.folds or 0, experiment.options.seed)[fold])
    weights = None if rows.weights is None else rows.weights[kept]
    return FoldRows((some_rows(x, kept), y[kept]), (some_rows(x, held), y[held]), None, weights)


def _is_done(experiment: Experiment, path: PathOptions, rows: RowSplits, folder: RunFolder, fold: FoldNumber) -> bool:
    """Return whether all points of a fold are there, or as many as its path has before it collapses."""
    points = folder.read_points(fold)
    if path.start == COLD or not points or len(points) == path.points:
        return len(points) == path.points
    found = _rows_of(experiment, path, rows, fold)
    return collapsed(points, found.recipe(experiment, path), found.validation)


def _placed(error: FloatingPointError, index: int, fold: FoldNumber) -> FloatingPointError:
    place = "" if fold is None else f"fold {fold + 1}, "
    return FloatingPointError(f"{place}point {index + 1}: {error}; try a smaller --lr")
