"""A finished run: its experiment and its trained model, read from the folder."""

from __future__ import annotations

from torch import nn

from torchlasso.cli.experiment import Experiment
from torchlasso.cli.run_folder import RunFolder
from torchlasso.compact import restore_


def open_run(path: str) -> tuple[RunFolder, Experiment, nn.Module]:
    """The folder, the experiment and the model of a finished run.

    Raises:
        ValueError: there is no finished run, or its files are damaged or do not fit together.
    """
    folder = RunFolder(path)
    experiment = folder.read_experiment()
    model, (weights, cuts) = experiment.build_model(), folder.read_model()
    try:
        restore_(model, experiment.example, cuts)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{folder.model} does not fit the model {experiment.options.model!r}") from error
    return folder, experiment, model
