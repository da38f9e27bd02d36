"""Run a path: train its points, cross-validate, choose a point, and draw the frontier into the run's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context

import torch
from torch import nn

from torchlasso.distributed import processes
from torchlasso.figures import frontier, save
from torchlasso.figures._style import plain
from torchlasso.path import Point, choose, follow, pooled, remarks
from torchlasso.runs.evaluation import summarise
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.health import doubts
from torchlasso.runs.observer import SILENT, Observer
from torchlasso.runs.options import DENSE
from torchlasso.runs.page.frontiers import series_of
from torchlasso.runs.page.reading import mean_images
from torchlasso.runs.page.writing import write_page
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.rows import RowSplits, read_data
from torchlasso.runs.summary import Summary
from torchlasso.runs.word_effects import word_effects
from torchlasso.startup import leaving_interrupts_here
from torchlasso.training.rows import some_rows
from torchlasso.training.trainer import Step, Trainer


def run_path(experiment: Experiment, rows: RowSplits, folder: RunFolder, observer: Observer = SILENT) -> Summary:
    """Train the remaining points of a path, choose one, and write all files of the folder.

    Raises:
        FloatingPointError: the loss or the weights became infinite or NaN.
        ValueError: the folder's files are damaged, or the run is not a path.
        OSError: a file cannot be written.
    """
    path = experiment.options.path
    if path is None:
        raise ValueError(f"{folder.path} holds a run of torchlasso train, not a path; resume it with torchlasso train")
    model = experiment.build_model()
    points = _follow(experiment, path, rows, folder, model, observer)
    folds = _cross_validate(experiment, path, rows, folder, observer) if path.folds else []
    judged = pooled(points, folds) if folds else points
    chosen = choose(judged, path.choose, path.tolerance)
    _load(model, folder, chosen.index)
    folder.write_model(model.state_dict())
    _draw(judged, chosen, folder, experiment, observer)
    summary = _summary(experiment, model, rows, chosen, points)
    found = (*remarks(points, path.grid, path.collapse), *doubts(summary, experiment.loss, rows))
    summary = replace(summary, warnings=found)
    folder.write_means(mean_images(experiment.inputs, rows.train))
    folder.write_words(word_effects(experiment, model, rows.train[0]))
    write_page(folder, experiment, model, summary)
    folder.write_summary(summary)
    observer.chosen(judged, chosen, summary)
    for sentence in found:
        observer.say(f"warning: {sentence}")
    figure = f", {folder.frontiers[0].name}" if folder.frontiers[0].exists() else ""
    observer.say(f"{folder.path}: path.jsonl, points/, model.safetensors, report.html{figure}")
    return summary


def _follow(
    experiment: Experiment, path: PathOptions, rows: RowSplits, folder: RunFolder, model: nn.Module, observer: Observer
) -> list[Point]:
    points = folder.read_points()
    if points:
        _load(model, folder, points[-1].index)
    recipe = experiment.recipe(path, rows.train, rows.weights)
    with observer.path(path.points) as watching:

        def watch(index: int, trainer: Trainer) -> Callable[[Step], None]:
            return watching(index, trainer.steps)

        validation = rows.validation if len(rows.validation[0]) else None
        try:
            for point in follow(model, recipe, rows.train, validation, rows.test, points, watch):
                folder.write_weights(
                    point.index, model.state_dict()
                )  # the weights first: a point counts only if it has weights
                points.append(point)
                folder.write_points(points)
                observer.point(point, path.points)
        except FloatingPointError as error:
            raise FloatingPointError(f"point {len(points) + 1}: {error}; try a smaller --lr") from error
    if again := sum(point.tries - 1 for point in points):
        observer.say(f"To spread the points, {again} of {again + len(points)} trainings were made with another λ.")
    return points


def _cross_validate(
    experiment: Experiment, path: PathOptions, rows: RowSplits, folder: RunFolder, observer: Observer
) -> list[list[Point]]:
    """Train the path of every fold, each in a separate process if there are enough cores."""
    count = path.folds or 0
    if processes.size() > 1:
        raise ValueError("--folds starts its own processes: run it without torchrun")
    done = [folder.read_points(k) for k in range(count)]
    waiting = [k for k, points in enumerate(done) if not points]
    observer.say(
        f"cross-validation: {count} folds" + (f", {count - len(waiting)} done" if len(waiting) < count else "")
    )
    workers = max(1, min(len(waiting), os.cpu_count() or 1))
    if waiting:
        with _pool(workers) as pool:
            with leaving_interrupts_here():
                jobs = {k: pool.submit(_fold, experiment, k, torch.get_num_threads() // workers) for k in waiting}
            for k, job in jobs.items():
                try:
                    done[k] = job.result()
                except BrokenExecutor as error:
                    how = f"torchlasso path --resume --out {folder.path}"
                    raise OSError(f"a process that trained a fold has died; resume with: {how}") from error
                folder.write_points(done[k], k)
                observer.say(f"fold {k + 1}/{count} done")
    return done


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of processes that are terminated when this one is interrupted or fails."""
    others = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def _fold(experiment: Experiment, k: int, threads: int) -> list[Point]:
    """Train the points of one fold, in a separate process."""
    torch.set_num_threads(max(1, threads))
    path = experiment.options.path or PathOptions()
    _, rows = read_data(experiment.options)
    x, y = rows.train
    kept, held = (part.to(x.device) for part in rows.folds(path.folds or 0, experiment.options.seed)[k])
    model, known = experiment.build_model(), (some_rows(x, kept), y[kept])
    recipe = experiment.recipe(path, known, None if rows.weights is None else rows.weights[kept])
    return list(follow(model, recipe, known, (some_rows(x, held), y[held])))


def _load(model: nn.Module, folder: RunFolder, index: int) -> None:
    try:
        model.load_state_dict(folder.read_weights(index))
    except RuntimeError as error:
        raise ValueError(f"{folder.weights} is damaged or from another run: point {index} does not fit") from error


def _summary(experiment: Experiment, model: nn.Module, rows: RowSplits, chosen: Point, points: list[Point]) -> Summary:
    groups = experiment.groups(model, chosen.lam)
    epochs, seconds = sum(p.epochs for p in points), sum(p.seconds for p in points)
    summary = summarise(experiment, model, groups, rows, epochs=epochs, seconds=seconds)
    # the stationarity with the weights of the penalty in training
    return replace(
        summary, stationarity=chosen.stationarity, regularisation=experiment.options.regularisation, data=rows.card
    )


@processes.by_first
def _draw(points: list[Point], chosen: Point, folder: RunFolder, experiment: Experiment, observer: Observer) -> None:
    try:
        classes = bool(experiment.inputs.classes)
        measure = "error" if classes else "loss"
        axes = frontier(
            series_of(points),
            measure=measure,
            percent=classes,
            chosen=(1 - chosen.sparsity, chosen.badness or 0.0),
            title=plain(f"{experiment.options.model} on {experiment.options.data}: from {DENSE} to sparse"),
        )
        save(axes, *folder.frontiers)
    except ImportError as error:
        observer.say(f"no figure: {error}")
