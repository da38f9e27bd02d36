"""Add epochs to a finished run: ``--more-epochs``.

Everything goes on where it was after the last epoch: the weights and the optimizer, the order of rows, λ without a
target, the best epoch so far. The learning rate is the one that a training of all epochs has there. Where λ met a
target, or a hold began, the zeros are held in the added epochs.
"""

from __future__ import annotations

from dataclasses import replace

from torchlasso.runs.experiment import Experiment
from torchlasso.runs.extension import Extension
from torchlasso.runs.folder import RunFolder


def extended(experiment: Experiment, folder: RunFolder, epochs: int) -> Experiment:
    """Return the experiment of a finished run with more epochs, and turn its folder into that of a run that goes on.

    Comparisons train as long as the run. A refit, and all that was made of the trained model, is made anew.

    Raises:
        ValueError: the run is not finished; its target has zeros that are not weights, which cannot be held.
    """
    if epochs < 1:
        raise ValueError(f"--more-epochs must be a number of epochs, at least 1; got {epochs}")
    if not folder.summary.exists():
        finish = f"torchlasso train --resume --out {folder.path}"
        raise ValueError(f"--more-epochs adds to a finished run, and {folder.path} is not; finish it with: {finish}")
    options = experiment.options
    if options.target is not None and not options.hold:
        experiment.proximal(experiment.groups(experiment.build_model(weights=False))).check_hold()
    more = Extension(after=folder.read_summary().epochs, epochs=epochs)
    experiment = replace(experiment, options=replace(options, extensions=(*options.extensions, more)))
    folder.extend(experiment)
    return experiment
