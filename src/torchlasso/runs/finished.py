"""A finished run: its experiment and its trained model, read from the folder."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from torchlasso.compaction import restore_
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder


class FinishedRun(NamedTuple):
    """A run that is over: its folder, its experiment, its model, and what was taken out of the model since it began."""

    folder: RunFolder
    experiment: Experiment
    model: nn.Module
    cuts: list[dict[str, Any]]


def open_run(path: str, *, compact: bool = False) -> FinishedRun:
    """The folder, the experiment and the model of a finished run; ``compact``: the model that was compacted.

    Raises:
        ValueError: there is no finished run, or its files are damaged or do not fit together, or nothing was compacted.
    """
    folder = RunFolder(path)
    experiment = folder.read_experiment()
    model, (weights, cuts) = experiment.build_model(), folder.read_compact() if compact else folder.read_model()
    try:
        restore_(model, experiment.example, cuts)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        file = folder.compact if compact else folder.model
        raise ValueError(f"{file} does not fit the model {experiment.options.model!r}") from error
    return FinishedRun(folder, experiment, model, cuts)
