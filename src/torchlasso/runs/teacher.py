"""A finished run as a teacher."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from torchlasso.runs.finished import open_run
from torchlasso.runs.rows import InputSpec
from torchlasso.training.trainer import outputs_of


def outputs_of_teacher(path: str, allowed: Collection[str], inputs: InputSpec, x: Tensor) -> Tensor:
    """Return the outputs of the run in ``path`` for rows that are prepared for ``inputs``.

    Raises:
        ValueError: the run is not finished, it was trained on other data, or it names a function that is not in
            ``allowed``.
    """
    run = open_run(path, allowed)
    theirs = run.experiment.inputs
    for what in ("shape", "outputs", "classes", "features"):
        if getattr(theirs, what) != getattr(inputs, what):
            found, wanted = getattr(theirs, what), getattr(inputs, what)
            raise ValueError(f"--teacher {path} was trained on other data: its {what} is {found}; here it is {wanted}")
    if theirs.standardizer != inputs.standardizer:
        x = theirs.standardizer(inputs.standardizer.undone(x))
    outputs = outputs_of(run.model.to(x.device), x)
    return outputs if theirs.scale == inputs.scale else inputs.scaled(theirs.predictions(outputs))
