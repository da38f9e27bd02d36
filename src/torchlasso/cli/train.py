"""``torchlasso train``: train a sparse model, and what it is to be compared with, in a folder that can be resumed."""

from __future__ import annotations

from typing import Annotated

import typer

from torchlasso.cli import arguments
from torchlasso.cli.screen import Screen
from torchlasso.cli.starting import listed, started
from torchlasso.runs.experiment import COMPARISONS, Options
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.train import run


def train(
    context: typer.Context,
    out: arguments.Out,
    data: arguments.Data = None,
    label: arguments.Label = None,
    ignore: arguments.Ignore = "",
    validation: arguments.Validation = Options.validation,
    model: arguments.Model = Options.model,
    loss: arguments.LossName = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of zeros to end with, such as 0.95: λ is found, from --lam on.")
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="Operations to end with, a share or a number; with --over units, filters or rows."),
    ] = None,
    bytes_: Annotated[
        float | None, typer.Option("--bytes", help="Size to end with, a share or a number; likewise.")
    ] = None,
    lam: Annotated[float, typer.Option(help="λ ≥ 0: the problem is mean loss + λ·penalty.")] = Options.lam,
    penalty: arguments.PenaltyName = Options.penalty,
    over: arguments.Over = None,
    reweight: arguments.Reweight = None,
    optimizer: arguments.OptimizerName = Options.optimizer,
    lr: arguments.Rate = Options.lr,
    schedule: arguments.Schedule = Options.schedule,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = Options.epochs,
    refit: Annotated[
        int | None, typer.Option(help="Epochs without a penalty on what is left; the better model is kept.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Folder of a finished run to learn from as well; or dense: train that first.")
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Take out what has died while training, when it saves time; --over units.")
    ] = False,
    batch_size: arguments.BatchSize = Options.batch_size,
    seed: arguments.Seed = Options.seed,
    device: arguments.Device = Options.device,
    compare: Annotated[
        str, typer.Option(help=f"Also train these, the same epochs: {', '.join(COMPARISONS)}, or both by a comma.")
    ] = "",
    resume: arguments.Resume = False,
    overwrite: arguments.Overwrite = False,
    allow_code: arguments.AllowCode = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Train a model whose weights become exactly zero.

    Example: torchlasso train --data digits --model lenet-5 --sparsity 0.95 --compare dense --out runs/a

    On several devices: torchrun --nproc-per-node 2 -m torchlasso train …, to the same weights up to rounding. A batch
    is shared among the processes; a batch norm sees the share of its process, and dropout differs by process.
    """
    given = {**context.params, "bytes": bytes_, "ignore": listed(ignore), "compare": listed(compare)}
    folder = RunFolder(out, arguments.allowed(data, model, loss, by=allow_code))
    start = started(context, given, folder, data, resume=resume, overwrite=overwrite, as_json=as_json)
    with start as (experiment, rows):
        run(experiment, rows, folder, Screen())
