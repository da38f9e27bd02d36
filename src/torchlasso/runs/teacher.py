"""A finished run as a teacher."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from torchlasso.data import Standardizer
from torchlasso.data.scaled import ScaledRows
from torchlasso.runs.finished import open_run
from torchlasso.runs.rows import InputSpec
from torchlasso.training.evaluation import outputs_of
from torchlasso.training.rows import InputRows


def outputs_of_teacher(path: str, allowed: Collection[str], inputs: InputSpec, x: InputRows) -> Tensor:
    """Return the outputs of the run in ``path`` for rows that are prepared for ``inputs``.

    Raises:
        ValueError: the run is not finished, it was trained on other data, or it names a function that is not in
            ``allowed``.
    """
    run = open_run(path, allowed)
    theirs = run.experiment.inputs
    if theirs.text != inputs.text:
        raise ValueError(f"--teacher {path} was trained on other data: its words, or its tokenizer, are others")
    for what in ("shape", "outputs", "classes", "features"):
        if getattr(theirs, what) != getattr(inputs, what):
            found, wanted = getattr(theirs, what), getattr(inputs, what)
            raise ValueError(f"--teacher {path} was trained on other data: its {what} is {found}; here it is {wanted}")
    if theirs.standardizer != inputs.standardizer:
        x = _scaled_again(x, inputs.standardizer, theirs.standardizer)
    outputs = outputs_of(run.model.to(x.device), x)
    return outputs if theirs.scale == inputs.scale else inputs.scaled(theirs.predictions(outputs))


def _scaled_again(x: InputRows, ours: Standardizer, theirs: Standardizer) -> InputRows:
    return ScaledRows(x.data, theirs, x.device, x.workers) if isinstance(x, ScaledRows) else theirs(ours.undone(x[:]))
