"""``torchlasso predict``: the predictions of a finished run's model."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import torch
import typer
from torch import Tensor

from torchlasso import data as datasets
from torchlasso._core import files
from torchlasso._core.files import write_text
from torchlasso._core.readable import percent
from torchlasso._core.text import printable
from torchlasso.cli import options, screen
from torchlasso.data.records import Labels
from torchlasso.data.splits import codes_of
from torchlasso.data.stored.options import AUTO, STREAMS, StreamOptions
from torchlasso.distributed.processes import by_first
from torchlasso.runs.card import ModelCard, open_model
from torchlasso.runs.quality import NO_FIGURES, Judge
from torchlasso.runs.quality.tables import figures_of
from torchlasso.runs.rows import InputSpec
from torchlasso.training.evaluation import evaluate_outputs, outputs_of


def predict(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or an exported .onnx or .pt2 file.")],
    data: Annotated[
        str, typer.Option(help="Rows to predict: any data that train reads, with or without labels, or an image.")
    ],
    out: Annotated[str | None, typer.Option(help="CSV file to write; without it, standard output.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probabilities of all classes, a column for each.")
    ] = False,
    stream: Annotated[
        str, typer.Option(help=f"Rows that stay on the disk: {', '.join(STREAMS)}; auto, where they are large.")
    ] = AUTO,
    workers: Annotated[int, typer.Option(help="Processes that read the batches of rows on the disk ahead.")] = 0,
    allow_code: options.AllowCode = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the figures as JSON on standard output; predictions go to --out only."),
    ] = False,
) -> None:
    """Predict the rows of a data set as CSV, and report the quality if the rows have labels.

    Example: torchlasso predict runs/a --data digits --out predictions.csv
    """
    card, model = open_model(run, options.allowed(data, by=allow_code))
    inputs = card.inputs
    if probabilities and not inputs.classes:
        raise ValueError("--probabilities needs a model of classes; this one predicts numbers")
    part = card.read(data, StreamOptions(stream, workers))
    if as_json and part.y is None:
        raise ValueError(f"--json prints figures, which need labels; {data} has none")
    x = inputs.prepare(part, data, workers)
    for note in (*part.notes, *inputs.notes(part, data)):
        screen.errors.print(f"{data}: {note}", soft_wrap=True)
    if (first := next(model.parameters(), None)) is not None:  # an exported model is on the CPU
        x = x.to(first.device)
    y = None if part.y is None else _targets(part.y, inputs, data)
    outputs = outputs_of(model, x).cpu()
    if not as_json or out is not None:
        _write(out, _table(outputs, inputs, part.names, every=probabilities))
    if y is not None:
        groups = None if part.groups is None else codes_of(part.groups)
        if card.group is not None and groups is None:
            screen.errors.print(
                f"{data}: without the groups of {card.group!r}, intervals take rows to be independent", soft_wrap=True
            )
        _report(card, outputs, y, groups, as_json=as_json)


def _table(outputs: Tensor, inputs: InputSpec, names: Sequence[str], *, every: bool) -> list[list[str]]:
    """Make the lines of the CSV file; ``every``: with the probabilities of all classes."""
    if inputs.classes:
        likely = outputs.softmax(dim=1)
        head = ["row", "prediction", "probability", *(f"probability_{name}" for name in inputs.classes if every)]
        best, more = likely.max(dim=1), likely.tolist() if every else [[]] * len(likely)
        lines = [
            [str(i), inputs.classes[k], *(f"{value:.6f}" for value in (p, *others))]
            for i, (p, k, others) in enumerate(zip(best.values.tolist(), best.indices.tolist(), more, strict=True))
        ]
    else:
        head = ["row", *(f"prediction_{i}" if outputs.shape[1] > 1 else "prediction" for i in range(outputs.shape[1]))]
        lines = [
            [str(i), *(f"{value:.6g}" for value in row)] for i, row in enumerate(inputs.predictions(outputs).tolist())
        ]
    if names:  # such as the files of images
        head, lines = [*head, "file"], [[*line, name] for line, name in zip(lines, names, strict=True)]
    return [head, *lines]


def _report(card: ModelCard, outputs: Tensor, y: Tensor, groups: Tensor | None, *, as_json: bool) -> None:
    """Print how good the predictions are."""
    found = evaluate_outputs(outputs, card.loss, y)
    judged = card.judge.judge(outputs, y, groups) if Judge.is_possible() else None
    if as_json:
        quality = None if judged is None else asdict(judged)
        print(files.as_json({"rows": len(y), **asdict(found), "quality": quality}), end="")
        return
    error = "" if found.error is None else f"error {percent(found.error)}, "
    screen.errors.print(f"{len(y):,} rows: {error}loss {found.loss:.4f}", soft_wrap=True)
    if judged is None:
        screen.errors.print(NO_FIGURES, soft_wrap=True)
        return
    head, *rows = figures_of(judged, "these rows", {})
    screen.errors.tabulate(screen.columns(head, rows))


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
        try:
            return datasets.class_indices(labels, inputs.classes)
        except ValueError as error:
            raise ValueError(f"{origin}: {error} of the model") from error
    if inputs.is_survival:
        return torch.from_numpy(labels)
    if labels.dtype.kind not in "if":
        raise ValueError(f"{origin}: its labels are text; the model predicts numbers")
    targets = torch.from_numpy(labels).float().reshape(len(labels), -1)
    if targets.shape[1] != inputs.outputs:
        raise ValueError(f"{origin}: {targets.shape[1]} targets per row; the model predicts {inputs.outputs}")
    return inputs.scaled(targets)
