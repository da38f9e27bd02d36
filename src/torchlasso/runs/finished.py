"""A finished run: its experiment and its trained model, read from the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from torchlasso.compaction import restore_
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.words import with_words


class FinishedRun(NamedTuple):
    """A finished run: its folder, its experiment, its model, and the records of removals from the model.

    The experiment of a compacted model of texts has the words only that the model reads.
    """

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
    weights, cuts = folder.read_compact() if compact else folder.read_model()
    words = folder.read_kept_words() if compact else None
    try:
        experiment = experiment if words is None else with_words(experiment, torch.tensor(words, dtype=torch.long))
    except ValueError as error:
        raise ValueError(f"{folder.compact} is damaged: {error}") from error
    model = experiment.build_model(weights=False)
    try:
        restore_(model, experiment.example, cuts)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        file = folder.compact if compact else folder.model
        raise ValueError(f"{file} does not fit the model {experiment.options.model!r}") from error
    return FinishedRun(folder, experiment, model, cuts)
