"""``torchlasso predict``: the predictions of a finished run's model."""

from __future__ import annotations

import csv
import io
import sys
from typing import Annotated

import torch
import typer
from torch import Tensor

from torchlasso import data as datasets
from torchlasso._core.files import write_text
from torchlasso._core.readable import percent
from torchlasso._core.text import printable
from torchlasso.cli import options, screen
from torchlasso.data.records import Labels
from torchlasso.distributed.processes import by_first
from torchlasso.runs.card import open_model
from torchlasso.runs.rows import InputSpec
from torchlasso.training.trainer import evaluate_outputs, outputs_of


def predict(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or an exported .onnx or .pt2 file.")],
    data: Annotated[
        str, typer.Option(help="Rows to predict: any data that train reads, with or without labels, or an image.")
    ],
    out: Annotated[str | None, typer.Option(help="CSV file to write; without it, standard output.")] = None,
    allow_code: options.AllowCode = None,
) -> None:
    """Predict the rows of a data set as CSV, and report the error if the rows have labels.

    Example: torchlasso predict runs/a --data digits --out predictions.csv
    """
    card, model = open_model(run, options.allowed(data, by=allow_code))
    inputs = card.inputs
    part = card.read(data)
    x = inputs.prepare(part, data)
    for note in (*part.notes, *inputs.notes(part, data)):
        screen.errors.print(f"{data}: {note}")
    if (first := next(model.parameters(), None)) is not None:  # an exported model is on the CPU
        x = x.to(first.device)
    y = None if part.y is None else _targets(part.y, inputs, data)
    outputs = outputs_of(model, x).cpu()
    if inputs.classes:
        probabilities, best = outputs.softmax(dim=1).max(dim=1)
        head = ["row", "prediction", "probability"]
        lines = [
            [str(i), inputs.classes[k], f"{p:.6f}"]
            for i, (k, p) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True))
        ]
    else:
        head = ["row", *(f"prediction_{i}" if outputs.shape[1] > 1 else "prediction" for i in range(outputs.shape[1]))]
        lines = [
            [str(i), *(f"{value:.6g}" for value in row)] for i, row in enumerate(inputs.predictions(outputs).tolist())
        ]
    if part.names:  # such as the files of images
        head, lines = [*head, "file"], [[*line, name] for line, name in zip(lines, part.names, strict=True)]
    _write(out, [head, *lines])
    if y is not None:
        found = evaluate_outputs(outputs, card.loss, y)
        error = "" if found.error is None else f"error {percent(found.error)}, "
        screen.errors.print(f"{len(x):,} rows: {error}loss {found.loss:.4f}")


@by_first
def _write(out: str | None, lines: list[list[str]]) -> None:
    if out is None:  # perhaps a terminal, so names from other people's files are escaped
        shown = [[printable(cell) for cell in line] for line in lines]
        csv.writer(sys.stdout, lineterminator="\n").writerows(shown)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(out, text.getvalue())


def _targets(labels: Labels, inputs: InputSpec, origin: str) -> Tensor:
    if inputs.classes:
        return datasets.class_indices(labels, inputs.classes)
    if labels.dtype.kind not in "if":
        raise ValueError(f"{origin}: its labels are text; the model predicts numbers")
    targets = torch.from_numpy(labels).float().reshape(len(labels), -1)
    if targets.shape[1] != inputs.outputs:
        raise ValueError(f"{origin}: {targets.shape[1]} targets per row; the model predicts {inputs.outputs}")
    return inputs.scaled(targets)
