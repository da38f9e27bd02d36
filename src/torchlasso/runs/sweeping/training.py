"""The training of a trial, in parts: a run in a folder of its own, which goes on after each pause."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchlasso._core.text import first_line
from torchlasso.path import Point
from torchlasso.path.spreads import standard_error
from torchlasso.runs.evaluation import weights_left
from torchlasso.runs.experiment import OURS, Experiment
from torchlasso.runs.finished import open_run
from torchlasso.runs.folder import TRAINING_CODE, RunFolder
from torchlasso.runs.kept_rows import rows_for
from torchlasso.runs.observer import Silent
from torchlasso.runs.pretraining import options_from
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.sweeping.axes import with_values
from torchlasso.runs.sweeping.record import DONE, FAILED, PAUSED, SweepTrial
from torchlasso.runs.train import run_training
from torchlasso.training.evaluation import Evaluation, evaluate


class TrainingPaused(Exception):  # noqa: N818  (it is no error)
    """The end of a part of a training, at the end of an epoch, whose state is saved."""


@dataclass(frozen=True)
class Until(Silent):
    """An observer that pauses a training after so many epochs.

    Attributes:
        epochs: their number.
    """

    epochs: int

    def epoch(self, name: str, epochs: int, metrics: dict[str, Any]) -> None:
        """Pause the training, unless it is at its end."""
        if name == OURS and self.epochs <= metrics["epoch"] < epochs:
            raise TrainingPaused


def train_trial(
    trial: SweepTrial, given: Mapping[str, Any], path: Path, allowed: Collection[str], share: float
) -> SweepTrial:
    """Train a trial up to a share of its epochs, from where it is, and return its state.

    An error ends the trial, not the sweep.

    Args:
        trial: the trial.
        given: the options that all trainings have.
        path: the folder of the trial.
        allowed: the functions that its options may name.
        share: of its epochs, above 0; at 1, it is evaluated.
    """
    folder = RunFolder(path, allowed)
    try:
        if not folder.holds_a_run:
            options = options_from(with_values(given, trial.values))
            inputs, rows = rows_for(options)
            experiment = Experiment(options, inputs)
        else:
            experiment = folder.read_experiment()
            _, rows = rows_for(experiment.options)
        with folder.locked():
            if not folder.holds_a_run:
                folder.start(experiment)
            return _trained(trial, experiment, rows, folder, share)
    except OSError:  # of a full disk, which is no fault of the trial
        raise
    # any other exception: the mistakes of users' models and options are of all kinds, as for the command line
    except Exception as error:
        return replace(trial, state=FAILED, error=first_line(error))


def _trained(trial: SweepTrial, experiment: Experiment, rows: RowSplits, folder: RunFolder, share: float) -> SweepTrial:
    if not folder.summary.exists():
        epochs = epochs_of(share, experiment.options.epochs)
        if share < 1 and len(folder.read_metrics()) >= epochs:
            return replace(trial, state=PAUSED)
        try:
            run_training(experiment, rows, folder, Until(epochs), page=False)
        except TrainingPaused:
            return replace(trial, state=PAUSED)
    return replace(trial, state=DONE, point=_evaluated(trial, rows, folder))


def epochs_of(share: float, epochs: int) -> int:
    """Return the number of epochs that are a share of all, at least 1."""
    return max(1, math.ceil(share * epochs))


def _evaluated(trial: SweepTrial, rows: RowSplits, folder: RunFolder) -> Point:
    """Evaluate the model of a finished trial on the validation rows."""
    _, experiment, model, _ = open_run(str(folder.path), folder.allowed, uses=TRAINING_CODE)
    summary, loss = folder.read_summary(), experiment.loss
    found = evaluate(model.eval(), loss, *rows.validation)
    return Point(
        index=trial.number,
        lam=summary.lam,
        sparsity=summary.sparsity,
        nonzero=weights_left(model),
        validation=found,
        test=None,
        spread=standard_error(model, loss, found, *rows.validation),
        stationarity=summary.stationarity,
        epochs=summary.epochs,
        seconds=summary.seconds,
    )


def figures_at(trial: SweepTrial, folder: RunFolder, share: float) -> Point | None:
    """Return the figures of a trial after a share of its epochs; None if it did not come so far.

    They are those of the epoch, also when the trial went on, so that a sweep that is resumed decides the same.
    """
    lines = folder.read_metrics()
    if not lines:
        return None
    wanted = epochs_of(share, folder.read_experiment(()).options.epochs)
    if len(lines) < wanted and not folder.summary.exists():
        return None
    line = lines[min(wanted, len(lines)) - 1]
    if line.get("weights_left") is None:  # of an earlier version
        return None
    others = (line.get(f"val_{key}") for key in ("accuracy", "error", "balanced_error"))
    found = Evaluation(line["val_loss"], *others)
    return Point(
        index=trial.number,
        lam=line["lam"],
        sparsity=line["sparsity"],
        nonzero=line["weights_left"],
        validation=found,
        test=None,
        spread=None,
        stationarity=None,
        epochs=line["epoch"],
        seconds=line["seconds"],
    )
