"""Run an experiment: train and evaluate its model and its comparisons, and write the run's folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from torchlasso.control import TargetMissed
from torchlasso.runs.choices import BALANCED
from torchlasso.runs.compacting import shortfall
from torchlasso.runs.evaluation import judge_of, need_finite, summarise, weights_left
from torchlasso.runs.experiment import OURS, REFIT, Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.health import NO_GRADIENT, Metrics, empty_layers, is_beyond_recovery, warnings_of
from torchlasso.runs.keeping import BestEpoch, figure_of, measure_of_choice
from torchlasso.runs.observer import SILENT, Observer
from torchlasso.runs.options import DENSE, LOSS_TERM
from torchlasso.runs.page.reading import mean_images
from torchlasso.runs.page.writing import write_page
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.summary import Kept, Refit, Summary
from torchlasso.runs.teacher import outputs_of_teacher
from torchlasso.runs.tracking import Tracking, tracked
from torchlasso.runs.training import Training
from torchlasso.runs.word_effects import word_effects
from torchlasso.training.evaluation import evaluate_outputs, outputs_of
from torchlasso.training.trainer import support


def run_training(
    experiment: Experiment, rows: RowSplits, folder: RunFolder, observer: Observer = SILENT, *, page: bool = True
) -> Summary:
    """Train the experiment's model and its comparisons, and write all files of the run's folder.

    Args:
        experiment: the experiment.
        rows: its rows.
        folder: the folder of the run.
        observer: is told about everything.
        page: whether to write the page, which takes longer than a short training.

    Raises:
        FloatingPointError: the loss or the weights became infinite or NaN.
        ValueError: a checkpoint in the folder is damaged, or the teacher is not a finished run on such data.
        OSError: a file cannot be written.
    """
    options = experiment.options
    compared: dict[str, Summary] = {}
    teacher = None
    if options.teacher == DENSE:
        compared[DENSE], dense = _compare(DENSE, experiment, rows, folder, 0.0, observer)
        teacher = outputs_of(dense, rows.train[0])
    elif options.teacher is not None:
        teacher = outputs_of_teacher(options.teacher, folder.allowed, experiment.inputs, rows.train[0])
    model = experiment.build_model()
    training = experiment.trainer(model, rows.train, teacher, rows.weights)
    best = BestEpoch.of(experiment, training, rows)
    with tracked(experiment, folder.name, folder, observer) as tracking:
        metrics, kept = _train(OURS, training, rows, folder, observer, tracking, best)
        refit = _refit(experiment, model, rows, teacher, folder, observer) if options.refit else None
        summary = replace(
            _summary(experiment, training, rows),
            kept=kept,
            refit=refit,
            regularisation=options.regularisation,
            data=rows.card,
        )
        tracking.result(summary)
    missed = [control.missed for control in training.trainer.controls]
    found = warnings_of(training, summary, rows, metrics, balanced=options.class_weight == BALANCED)
    if more := shortfall(model, experiment):
        missed, found = [*missed, more], (*found, more)
    summary = replace(summary, target_met=not any(missed) if options.target is not None else None, warnings=found)
    folder.write_model(model.state_dict(), training.cuts)
    for name in options.comparisons:
        if name not in compared:
            compared[name], _ = _compare(name, experiment, rows, folder, summary.lam, observer)
    summary = replace(summary, dense=compared.get(DENSE), loss_term=compared.get(LOSS_TERM))
    folder.write_means(mean_images(experiment.inputs, rows.train))
    folder.write_words(word_effects(experiment, model, rows.train[0]))
    if page:
        summary = replace(summary, features_read=write_page(folder, experiment, model, summary))
    folder.write_summary(summary)
    observer.trained(summary)
    observer.say(f"{folder.path}: report.html, summary.json, model.safetensors")
    return summary


def _compare(
    name: str, experiment: Experiment, rows: RowSplits, folder: RunFolder, lam: float, observer: Observer
) -> tuple[Summary, nn.Module]:
    part = folder.started_part(name, experiment)
    model = experiment.build_model()
    training = experiment.compared(name, model, rows.train, lam, rows.weights)
    with tracked(experiment, f"{folder.name}/{name}", part, observer) as tracking:
        _, kept = _train(name, training, rows, part, observer, tracking, BestEpoch.of(experiment, training, rows))
        summary = _summary(experiment, training, rows)
        summary = replace(summary, kept=kept, regularisation=experiment.options.regularisation)
        tracking.result(summary)
    part.write_model(model.state_dict())
    part.write_summary(summary)
    return summary, model


def _refit(
    experiment: Experiment,
    model: nn.Module,
    rows: RowSplits,
    teacher: Tensor | None,
    folder: RunFolder,
    observer: Observer,
) -> Refit:
    """Train on without a penalty; restore ``model`` if it did not become better on the validation rows."""
    part = folder.started_part(REFIT, experiment)
    before = deepcopy(model.state_dict())
    measure, found = measure_of_choice(experiment), _figure(experiment, model, rows)
    training = experiment.refit(model, rows.train, teacher, rows.weights)
    with tracked(experiment, f"{folder.name}/{REFIT}", part, observer) as tracking:
        _train(REFIT, training, rows, part, observer, tracking)
    refitted = _figure(experiment, model, rows)
    if not (kept := refitted > found if measure.rises else refitted < found):
        model.load_state_dict(before)
    return Refit(kept, found, refitted, training.trainer.epoch, training.trainer.seconds, measure.key)


def _figure(experiment: Experiment, model: nn.Module, rows: RowSplits) -> float:
    """Return the figure by which a model is compared with another one."""
    outputs, y = outputs_of(model, rows.validation[0]), rows.validation[1]
    found = evaluate_outputs(outputs, experiment.loss, y)
    return figure_of(measure_of_choice(experiment), judge_of(experiment, rows), found, outputs, y)


def _train(
    name: str,
    training: Training,
    rows: RowSplits,
    folder: RunFolder,
    observer: Observer,
    tracking: Tracking,
    best: BestEpoch | None = None,
) -> tuple[Metrics, Kept | None]:
    """Train, or resume from the folder's checkpoint; return the metrics of all epochs, and the epoch that was kept.

    Training stops early where nothing can change any more, and where no epoch was better for long.
    """
    trainer, groups = training.trainer, training.groups
    metrics, before = _resume(training, folder, best)
    tracking.begin(metrics)
    epochs, done, told = trainer.plan.epochs, trainer.epoch * trainer.batches + trainer.batch, None

    def save() -> None:
        state = trainer.state_dict() | ({"before": before} if trainer.batch else {})
        folder.write_checkpoint(state | ({} if best is None else {"best": best.state_dict()}))

    try:
        with (
            _misses_left_out(),
            observer.training(name, trainer.steps, done, lambda: training.sparsity, lambda: training.lam) as watch,
        ):
            while trainer.epoch < epochs and not (best and best.is_over):
                training.settle()
                before = support(groups()) if before is None else before
                loss = trainer.run_epoch(watch, save)
                line = _epoch(training, rows, loss, before, support(groups()), best)
                if best is not None:
                    best.consider(line)
                if (left := trainer.shrink()) is not None:
                    line |= {"multiplications_left": left, "seconds": trainer.seconds}
                # the metrics first: a resume drops the lines of epochs after the checkpoint
                folder.write_metrics([*metrics, line])
                save()
                metrics.append(line)
                before = None
                tracking.epoch(line)
                observer.epoch(name, epochs, line)
                if left is not None:
                    observer.shrunk(trainer.epoch, left)
                if (empty := empty_layers(trainer.model, training)) != told and empty is not None:
                    observer.say(f"after epoch {trainer.epoch}: {empty}")
                told = empty
                if trainer.epoch < epochs and best is not None and best.is_over:
                    observer.say(f"after epoch {trainer.epoch}, training stops: {best.reason}")
                elif trainer.epoch < epochs and is_beyond_recovery(training):
                    observer.say(f"after epoch {trainer.epoch}, training stops: {NO_GRADIENT}")
                    break
    except FloatingPointError as error:
        kept = f"the checkpoint after epoch {len(metrics)} is in {folder.checkpoint}"
        raise FloatingPointError(
            f"{error}; {kept if metrics else 'there is no checkpoint yet'}; try a smaller --lr"
        ) from error
    return metrics, None if best is None else best.restore_()


@contextmanager
def _misses_left_out() -> Iterator[None]:
    """Leave out the warning of a missed target, which is in the summary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TargetMissed)
        yield


def _resume(training: Training, folder: RunFolder, best: BestEpoch | None) -> tuple[Metrics, Tensor | None]:
    """Load the folder's checkpoint into the trainer.

    Returns:
        The metrics of the epochs so far, and the support at the start of an epoch that is not finished.
    """
    trainer, state = training.trainer, folder.read_checkpoint()
    if state is None:
        return [], None
    try:
        trainer.load_state_dict(state)
        if best is not None:
            best.load_state_dict(state["best"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.checkpoint} is damaged or from another run ({error})") from error
    return folder.read_metrics()[: trainer.epoch], state.get("before")


def _epoch(
    training: Training, rows: RowSplits, loss: float, before: Tensor, now: Tensor, best: BestEpoch | None
) -> dict[str, Any]:
    trainer = training.trainer
    line = {
        "epoch": trainer.epoch,
        "loss": loss,
        "sparsity": training.sparsity,
        "switched": (now != before).double().mean().item(),  # the share that became zero or nonzero
        "lam": training.lam,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "seconds": trainer.seconds,
        "weights_left": weights_left(trainer.model),
    }
    if len(rows.validation[0]):
        outputs, y = outputs_of(trainer.model, rows.validation[0]), rows.validation[1]
        found = evaluate_outputs(outputs, trainer.loss, y)
        need_finite(found.loss, "validation")
        line |= {f"val_{key}": value for key, value in asdict(found).items()}
        line |= {} if best is None else best.figure(found, outputs, y)
    return line


def _summary(experiment: Experiment, training: Training, rows: RowSplits) -> Summary:
    trainer = training.trainer
    return summarise(
        experiment,
        trainer.model,
        training.groups(),
        rows,
        epochs=trainer.epoch,
        seconds=trainer.seconds,
        regularisation=trainer.regularisation,
        penalised=training.penalised if training.cuts else None,
    )
