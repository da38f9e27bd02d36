"""Run a path: train its points, cross-validate, choose a point, and draw the frontier into the run's folder."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from torchlasso.distributed import processes
from torchlasso.engine import Engine
from torchlasso.figures import frontier, save
from torchlasso.figures._style import plain
from torchlasso.path import Point, choose, pooled, remarks
from torchlasso.runs.evaluation import summarise
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.health import doubts
from torchlasso.runs.observer import SILENT, Observer
from torchlasso.runs.options import DENSE
from torchlasso.runs.page.frontiers import series_of
from torchlasso.runs.page.reading import mean_images
from torchlasso.runs.page.writing import write_page
from torchlasso.runs.path_trainings import load_point, train_path
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.summary import Summary
from torchlasso.runs.tracking import tracked
from torchlasso.runs.word_effects import word_effects

ONE_BY_ONE = Engine(jobs=1)


def run_path(
    experiment: Experiment,
    rows: RowSplits,
    folder: RunFolder,
    observer: Observer = SILENT,
    engine: Engine = ONE_BY_ONE,
) -> Summary:
    """Train the remaining points of a path, choose one, and write all files of the folder.

    Args:
        experiment: the experiment, which is a path.
        rows: its rows.
        folder: the folder of the run.
        observer: is told about everything.
        engine: runs the trainings that do not depend on each other.

    Raises:
        FloatingPointError: the loss or the weights became infinite or NaN.
        ValueError: the folder's files are damaged, or the run is not a path.
        OSError: a file cannot be written.
    """
    path = experiment.options.path
    if path is None:
        raise ValueError(f"{folder.path} holds a run of torchlasso train, not a path; resume it with torchlasso train")
    with tracked(experiment, folder.name, folder, observer) as tracking:
        tracking.begin_path(folder.read_points())
        points, folds = train_path(experiment, path, rows, folder, engine, observer, tracking)
        if again := sum(point.tries - 1 for point in points):
            observer.say(f"To spread the points, {again} of {again + len(points)} trainings were made with another λ.")
        judged = pooled(points, folds, folds_are_alike=not experiment.inputs.is_survival) if folds else points
        chosen = choose(judged, path.choose, path.tolerance)
        model = experiment.build_model()
        load_point(model, folder, chosen.index)
        folder.write_model(model.state_dict())
        _draw(judged, chosen, folder, experiment, observer)
        summary = _summary(experiment, model, rows, chosen, points)
        tracking.result(summary, 1 + chosen.index)
    found = (*remarks(points, path.grid, path.collapse), *doubts(summary, experiment.loss, rows))
    summary = replace(summary, warnings=found)
    folder.write_means(mean_images(experiment.inputs, rows.train))
    folder.write_words(word_effects(experiment, model, rows.train[0]))
    summary = replace(summary, features_read=write_page(folder, experiment, model, summary))
    folder.write_summary(summary)
    observer.chosen(judged, chosen, summary)
    for sentence in found:
        observer.say(f"warning: {sentence}")
    figure = f", {folder.frontiers[0].name}" if folder.frontiers[0].exists() else ""
    observer.say(f"{folder.path}: path.jsonl, points/, model.safetensors, report.html{figure}")
    return summary


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
