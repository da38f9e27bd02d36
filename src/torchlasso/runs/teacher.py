"""A finished run as a teacher."""

from __future__ import annotations

from torch import Tensor

from torchlasso.runs.experiment import Inputs
from torchlasso.runs.finished import open_run
from torchlasso.training.trainer import outputs_of


def outputs_of_teacher(path: str, inputs: Inputs, x: Tensor) -> Tensor:
    """What the model of the run in ``path`` gives for rows that are prepared for ``inputs``.

    Raises:
        ValueError: it is no finished run, or one for other data.
    """
    run = open_run(path)
    theirs = run.experiment.inputs
    for what in ("shape", "outputs", "classes", "features"):
        if getattr(theirs, what) != getattr(inputs, what):
            found, wanted = getattr(theirs, what), getattr(inputs, what)
            raise ValueError(f"--teacher {path}: it is for other data, its {what} is {found}; here it is {wanted}")
    if theirs.standardizer != inputs.standardizer:
        x = theirs.standardizer(inputs.standardizer.undone(x))
    return outputs_of(run.model.to(x.device), x)
