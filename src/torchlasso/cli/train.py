"""``torchlasso train``: train a sparse model, and what it is to be compared with, in a folder that can be resumed."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Annotated, Any

import typer

from torchlasso import models, penalties
from torchlasso.cli import screen
from torchlasso.cli.choices import BLOCKS, OPTIMIZERS
from torchlasso.cli.experiment import COMPARISONS, Experiment, Options, Rows, read
from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.running import run
from torchlasso.distributed import is_first_to_fail
from torchlasso.training import LOSSES, SCHEDULES


def train(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder of the run.")],
    data: Annotated[
        str | None,
        typer.Option(help="digits, hf:NAME, package.module:function, or a Parquet, CSV, NPZ or IDX file or folder."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label column of a table.")] = None,
    ignore: Annotated[str, typer.Option(help="Columns of a table to leave out, separated by commas.")] = "",
    validation: Annotated[
        float, typer.Option(help="Share of the training rows that is held out.")
    ] = Options.validation,
    model: Annotated[
        str, typer.Option(help=f"{', '.join(models.names())} or package.module:function.")
    ] = Options.model,
    loss: Annotated[str | None, typer.Option(help=f"{', '.join(LOSSES)} or package.module:function.")] = None,
    lam: Annotated[float, typer.Option(help="λ ≥ 0: the problem is mean loss + λ·penalty.")] = Options.lam,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of zeros to end with, such as 0.95: λ is found, --lam is its start.")
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Operations to end with, as a share or a number; for --over filters or rows.")
    ] = None,
    bytes_: Annotated[
        float | None, typer.Option("--bytes", help="Size to end with, as a share or in bytes; likewise.")
    ] = None,
    penalty: Annotated[
        str, typer.Option(help=f"{', '.join(penalties.registry())}; with options as in mcp:gamma=3.")
    ] = Options.penalty,
    over: Annotated[str | None, typer.Option(help=f"{', '.join(BLOCKS)}; with options as in heads:n=4.")] = None,
    reweight: Annotated[
        float | None, typer.Option(help="θ, such as 0.05: λ of each weight times θ/(|w|+θ), for what is kept.")
    ] = None,
    refit: Annotated[
        int | None, typer.Option(help="Epochs without penalty on what is left; the better one is kept.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Folder of a finished run to learn from as well, or dense: train it first.")
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help=f"{', '.join(OPTIMIZERS)}; with options as in sgd:momentum=0.9.")
    ] = Options.optimizer,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = Options.lr,
    schedule: Annotated[str, typer.Option(help=f"Of the rate: {', '.join(SCHEDULES)}.")] = Options.schedule,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = Options.epochs,
    batch_size: Annotated[int, typer.Option(help="Rows per step, of all processes.")] = Options.batch_size,
    seed: Annotated[int, typer.Option(help="Of the start, the order of rows and the validation rows.")] = Options.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = Options.device,
    compare: Annotated[
        str, typer.Option(help=f"Also train these, the same epochs: {', '.join(COMPARISONS)}, or both by a comma.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a model whose weights become exactly zero.

    Example: torchlasso train --data digits --model lenet-5 --sparsity 0.95 --compare dense --out runs/a

    On several devices: torchrun --nproc-per-node 2 -m torchlasso train …, to the same weights up to rounding. A batch
    is shared among the processes; a batch norm sees the share of its process, and dropout differs by process.
    """
    folder = RunFolder(out)
    given = {key: value for key, value in context.params.items() if key in {f.name for f in fields(Options)}}
    given |= {"bytes": bytes_, "ignore": _listed(ignore), "compare": _listed(compare)}
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    try:
        if resume and folder.holds_a_run:
            experiment = folder.read_experiment()
            _refuse_changes(context, given, experiment.options)
            folder.sweep()
            _, rows = read(experiment.options)
        elif folder.holds_a_run and not overwrite:
            raise ValueError(f"{out} already holds a run; give --resume, --overwrite or another --out")
        elif data is None:
            raise ValueError(f"{out} holds no run to resume" if resume else "--data is missing: what to train on")
        else:
            experiment, rows = _prepare(Options(**given))
            folder.start(experiment)
        run(experiment, rows, folder)
    except KeyboardInterrupt:
        if not is_first_to_fail():
            raise typer.Exit(130) from None
        how = f"; go on with: torchlasso train --resume --out {shlex.quote(out)}" if folder.holds_a_run else ""
        screen.errors.print(f"interrupted{how}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _prepare(options: Options) -> tuple[Experiment, Rows]:
    """The experiment and its rows, tried out, so that what cannot be trained fails before anything is replaced."""
    inputs, rows = read(options)
    experiment = Experiment(options, inputs)
    try:
        experiment.trainer(experiment.build_model(), rows.train).trainer.rehearse()
    except (AssertionError, RuntimeError, TypeError) as error:
        what = f"model {options.model!r}, optimizer {options.optimizer!r}, --lr {options.lr:g}"
        raise ValueError(f"the first step fails with {what}: {str(error).splitlines()[0]}") from error
    return experiment, rows


def _refuse_changes(context: typer.Context, given: dict[str, Any], options: Options) -> None:
    for key, value in given.items():
        source = context.get_parameter_source("bytes_" if key == "bytes" else key)
        kept = getattr(options, key)
        if source is not None and source.name == "COMMANDLINE" and value != kept:
            raise ValueError(
                f"--{key.replace('_', '-')} {value} differs from the run's {kept}; a resumed run keeps its options"
            )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (item.strip() for item in text.split(","))))
