"""``torchlasso path``: the whole frontier from dense to sparse, in a folder that can be resumed."""

from __future__ import annotations

from typing import Annotated

import typer

from torchlasso.cli import arguments
from torchlasso.cli.screen import Screen
from torchlasso.cli.starting import listed, started
from torchlasso.path import RULES
from torchlasso.runs.experiment import Options, PathOptions
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.path import run_path


def path(
    context: typer.Context,
    out: arguments.Out,
    data: arguments.Data = None,
    label: arguments.Label = None,
    ignore: arguments.Ignore = "",
    validation: arguments.Validation = Options.validation,
    model: arguments.Model = Options.model,
    loss: arguments.LossName = None,
    points: Annotated[int, typer.Option(help="How many, the dense model included.")] = PathOptions.points,
    densest: Annotated[float, typer.Option(help="Share of zeros of the first sparse point.")] = PathOptions.densest,
    sparsest: Annotated[float, typer.Option(help="Share of zeros of the last point.")] = PathOptions.sparsest,
    lams: Annotated[str, typer.Option(help="First and last λ, as in 1e-6,1e-3: points by λ, not by density.")] = "",
    lam: Annotated[float, typer.Option(help="Where the search for λ starts.")] = Options.lam,
    penalty: arguments.PenaltyName = Options.penalty,
    over: arguments.Over = None,
    reweight: arguments.Reweight = None,
    optimizer: arguments.OptimizerName = Options.optimizer,
    lr: arguments.Rate = Options.lr,
    schedule: arguments.Schedule = Options.schedule,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows for the dense model.")] = 10,
    epochs_each: Annotated[int, typer.Option(help="The same for each other point.")] = PathOptions.epochs_each,
    lr_growth: Annotated[
        float, typer.Option(help="Learning rate of the last point, to that of the dense model; it grows on the way.")
    ] = PathOptions.lr_growth,
    batch_size: arguments.BatchSize = Options.batch_size,
    seed: arguments.Seed = Options.seed,
    device: arguments.Device = Options.device,
    collapse: Annotated[
        float, typer.Option(help="Stop where the error is this share of the way from the best to guessing.")
    ] = PathOptions.collapse,
    folds: Annotated[int | None, typer.Option(help="Choose by cross-validation with so many folds.")] = None,
    choose: Annotated[
        str, typer.Option(help=f"Which point is the model: {', '.join(RULES)} (of the best: the sparsest).")
    ] = PathOptions.choose,
    tolerance: Annotated[
        float, typer.Option(help="For within: how much more validation error, as a fraction.")
    ] = PathOptions.tolerance,
    resume: arguments.Resume = False,
    overwrite: arguments.Overwrite = False,
    allow_code: arguments.AllowCode = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Train from dense to sparse, each point from the one before, and draw the frontier.

    Example: torchlasso path --data digits --model lenet-5 --epochs-each 5 --out runs/p
    """
    try:
        ends = tuple(float(text) for text in listed(lams))
    except ValueError as error:
        raise ValueError(f"--lams are two numbers, as in 1e-6,1e-3; got {lams!r}") from error
    special = PathOptions(points, sparsest, densest, ends, epochs_each, lr_growth, collapse, choose, tolerance, folds)
    given = {**context.params, "ignore": listed(ignore), "path": special}
    folder = RunFolder(out, arguments.allowed(data, model, loss, by=allow_code))
    start = started(context, given, folder, data, resume=resume, overwrite=overwrite, as_json=as_json)
    with start as (experiment, rows):
        run_path(experiment, rows, folder, Screen())
