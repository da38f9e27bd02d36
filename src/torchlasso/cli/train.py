"""``torchlasso train``: train a sparse model and its comparisons, in a folder that can be resumed."""

from __future__ import annotations

from typing import Any

import typer

from torchlasso.cli import options
from torchlasso.cli.screen import Screen
from torchlasso.cli.starting import started
from torchlasso.runs.declared import TRAIN
from torchlasso.runs.options import Options
from torchlasso.runs.train import run_training


@options.takes(Options)
def train(
    context: typer.Context,
    out: options.Out,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    allow_code: options.AllowCode = None,
    more_epochs: options.MoreEpochs = None,
    as_json: options.AsJson = False,
    strict: options.Strict = False,
    **values: Any,
) -> None:
    """Train a model with weights that are exactly zero.

    Example: torchlasso train --data digits --model lenet-5 --sparsity 0.95 --compare dense --out runs/a

    On several devices: torchrun --nproc-per-node 2 -m torchlasso train …, with the same weights up to rounding. Each
    batch is split among the processes. A batch norm sees only the part of its process, and dropout differs by process.
    """
    given = options.parsed(Options, TRAIN, values)
    folder = options.folder_of(out, given, by=allow_code)
    start = started(
        context, given, folder, resume=resume, overwrite=overwrite, as_json=as_json, more_epochs=more_epochs
    )
    with start as (experiment, rows):
        summary = run_training(experiment, rows, folder, Screen())
    if strict and summary.warnings:
        raise typer.Exit(3)
