"""``torchlasso path``: train the whole frontier from dense to sparse, in a folder that can be resumed."""

from __future__ import annotations

from typing import Any

import typer

from torchlasso.cli import options
from torchlasso.cli.screen import Screen
from torchlasso.cli.starting import started
from torchlasso.runs.declared import PATH
from torchlasso.runs.engine_options import EngineOptions
from torchlasso.runs.options import Options
from torchlasso.runs.path import run_path
from torchlasso.runs.path_options import PathOptions


@options.takes(Options, PathOptions, EngineOptions)
def path(
    context: typer.Context,
    out: options.Out,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    allow_code: options.AllowCode = None,
    as_json: options.AsJson = False,
    strict: options.Strict = False,
    **values: Any,
) -> None:
    """Train a path of models from dense to sparse, each starting from the one before, and draw the frontier.

    Example: torchlasso path --data digits --model lenet-5 --epochs-each 5 --out runs/p
    """
    given = options.parsed(Options, PATH, values)
    given["path"] = PathOptions(**options.parsed(PathOptions, PATH, values))
    engine = EngineOptions(**options.parsed(EngineOptions, PATH, values))
    if not resume:
        engine.check_jobs(given["path"].trainings)
    engine.started_for(given["path"].trainings).check_installed()
    folder = options.folder_of(out, given, by=allow_code)
    start = started(context, given, folder, resume=resume, overwrite=overwrite, as_json=as_json)
    with start as (experiment, rows):
        path = experiment.options.path
        trainings = path.trainings if path else 1
        engine.check_jobs(trainings)
        summary = run_path(experiment, rows, folder, Screen(), engine.started_for(trainings))
    if strict and summary.warnings:
        raise typer.Exit(3)
