"""A finished run: its experiment and its trained model, read from the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from torch import nn

from torchlasso.compaction import restore_
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder


class FinishedRun(NamedTuple):
    """A finished run: its folder, its experiment, its model, and the records of removals from the model."""

    folder: RunFolder
    experiment: Experiment
    model: nn.Module
    cuts: list[dict[str, Any]]


def open_run(
    path: str, allowed: Collection[str] = (), *, compact: bool = False, uses: Iterable[str] = ("model",)
) -> FinishedRun:
    """Open a finished run: its folder, its experiment and its model.

    Args:
        path: the folder of the run.
        allowed: functions that the run may name, ``package.module:function``; no other function runs.
        compact: whether to open the compacted model instead of the full one.
        uses: the options that will be used, among those that may name a function.

    Raises:
        ValueError: there is no finished run, its files are damaged or inconsistent, there is no compacted model, or the
            run names a function that is not allowed.
    """
    folder = RunFolder(path, allowed)
    experiment = folder.read_experiment(uses)
    model, (weights, cuts) = experiment.build_model(), folder.read_compact() if compact else folder.read_model()
    try:
        restore_(model, experiment.example, cuts)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        file = folder.compact if compact else folder.model
        raise ValueError(f"{file} does not fit the model {experiment.options.model!r}") from error
    return FinishedRun(folder, experiment, model, cuts)
