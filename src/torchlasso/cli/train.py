"""``torchlasso train``: train a sparse model, and what it is to be compared with, in a folder that can be resumed."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from torchlasso.certify import stationarity
from torchlasso.cli import screen
from torchlasso.cli.experiment import DENSE, LOSS_TERM, OURS, Experiment, Options, Rows, read
from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.run_page import write_page
from torchlasso.report import report
from torchlasso.selection import Group, penalised
from torchlasso.training import Trainer, evaluate, full_gradient, sparsity

SUMMARY_KEYS = {DENSE: "dense", LOSS_TERM: "loss_term"}


def train(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder of the run.")],
    data: Annotated[
        str | None,
        typer.Option(help="digits, hf:NAME, package.module:function, or a Parquet, CSV, NPZ or IDX file or folder."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label column of a table.")] = None,
    ignore: Annotated[str, typer.Option(help="Columns of a table to leave out, separated by commas.")] = "",
    validation: Annotated[float, typer.Option(help="Share of the training rows that is held out.")] = 0.1,
    model: Annotated[
        str, typer.Option(help="cnn, lenet-300-100, lenet-5, mlp:depth=2, resnet-20 or one's own.")
    ] = "lenet-5",
    loss: Annotated[str | None, typer.Option(help="cross-entropy, mse or package.module:function.")] = None,
    lam: Annotated[float, typer.Option(help="λ ≥ 0: the problem is mean loss + λ·penalty.")] = 1e-4,
    penalty: Annotated[
        str, typer.Option(help="l1, elastic-net:ratio=0.5, mcp:gamma=3, scad, log-sum, l-half, sparse-group.")
    ] = "l1",
    over: Annotated[
        str | None, typer.Option(help="elements, rows, columns, filters, input-channels, heads:n=4, …")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adam, adamw, sgd:momentum=0.9, radam, …")] = "adam",
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-3,
    schedule: Annotated[str, typer.Option(help="cosine, linear or constant.")] = "cosine",
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the start, the order of rows and the validation rows.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    compare: Annotated[
        str, typer.Option(help="Also train these, the same epochs: dense, loss-term, or both by a comma.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a model whose weights become exactly zero.

    Example: torchlasso train --data digits --model lenet-5 --lam 3e-4 --compare dense --out runs/a
    """
    folder = RunFolder(out)
    given = {key: value for key, value in context.params.items() if key in {f.name for f in fields(Options)}}
    given |= {"ignore": _listed(ignore), "compare": _listed(compare)}
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    if resume and folder.holds_a_run:
        experiment = Experiment.from_dict(folder.read_config(), str(folder.config))
        _refuse_changes(context, given, experiment.options)
        _, rows = read(experiment.options)
    else:
        if folder.holds_a_run and not overwrite:
            raise ValueError(f"{out} already holds a run; give --resume, --overwrite or another --out")
        if data is None:
            raise ValueError(f"{out} holds no run to resume" if resume else "--data is missing: what to train on")
        options = Options(**given)
        inputs, rows = read(options)
        experiment = Experiment(options, inputs)
        experiment.trainer(OURS, experiment.build_model(), rows.train)  # fails before anything is replaced
        for name in (DENSE, LOSS_TERM):
            folder.remove_part(name)
        folder.start(experiment.to_dict())
    run(experiment, rows, folder)


def run(experiment: Experiment, rows: Rows, folder: RunFolder) -> dict[str, Any]:
    """Train the experiment's model and its comparisons, and write all that a run folder holds."""
    ours, model, groups = _run_variant(OURS, experiment, rows, folder)
    for name in experiment.options.compare:
        part = folder.part(name)
        if not part.holds_a_run:
            part.start(experiment.to_dict())
        ours[SUMMARY_KEYS[name]], _, _ = _run_variant(name, experiment, rows, part)
    write_page(folder, report(model, groups), ours)
    folder.write_summary(ours)
    screen.console.print()
    screen.comparison({OURS: ours} | {name: ours[SUMMARY_KEYS[name]] for name in experiment.options.compare})
    screen.console.print(f"\n{screen.verdict(ours)}\n{folder.path}: report.html, summary.json, model.safetensors")
    return ours


def _run_variant(
    variant: str, experiment: Experiment, rows: Rows, folder: RunFolder
) -> tuple[dict[str, Any], nn.Module, list[Group]]:
    model = experiment.build_model()
    trainer, groups = experiment.trainer(variant, model, rows.train)
    metrics: list[dict[str, Any]] = []
    if (state := folder.read_checkpoint()) is not None:
        trainer.load_state_dict(state)
        metrics = [line for line in folder.read_metrics() if line["epoch"] <= trainer.epoch]
    epochs = experiment.options.epochs
    done = trainer.epoch * trainer.batches
    with screen.progress(variant, trainer.steps, done, lambda: sparsity(groups), experiment.options.lam) as watch:
        while trainer.epoch < epochs:
            before = _support(groups)
            try:
                loss = trainer.run_epoch(watch)
                metrics.append(_epoch(trainer, experiment, rows, groups, before, loss))
            except FloatingPointError as error:
                raise FloatingPointError(_advice(error, folder, trainer.epoch)) from error
            folder.write_checkpoint(trainer.state_dict())
            folder.write_metrics(metrics)
            screen.epoch_line(variant, epochs, metrics[-1])
    summary = _summary(trainer, experiment, rows, groups)
    folder.write_model(model.state_dict())
    if variant != OURS:
        folder.write_summary(summary)
    return summary, model, groups


def _epoch(
    trainer: Trainer, experiment: Experiment, rows: Rows, groups: list[Group], before: Tensor, loss: float
) -> dict[str, Any]:
    now = _support(groups)
    line = {
        "epoch": trainer.epoch,
        "loss": loss,
        "sparsity": 1 - now.double().mean().item(),
        "switched": (now != before).double().mean().item(),  # the share that went from or to zero
        "lam": experiment.options.lam,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "seconds": trainer.seconds,
    }
    if len(rows.validation[0]):
        found = evaluate(trainer.model, trainer.loss, *rows.validation)
        if not math.isfinite(found.loss):
            raise FloatingPointError(f"the validation loss became {found.loss} after epoch {trainer.epoch}")
        line |= {f"val_{key}": value for key, value in asdict(found).items()}
    return line


def _summary(trainer: Trainer, experiment: Experiment, rows: Rows, groups: list[Group]) -> dict[str, Any]:
    found = evaluate(trainer.model, trainer.loss, *rows.test)
    seen = report(trainer.model, groups)
    layers = [layer for layer in seen.layers if layer.penalised]
    full_gradient(trainer.model, trainer.loss, *rows.train)
    return {
        **asdict(found),
        "sparsity": seen.sparsity,
        "nonzero": seen.nonzero,
        "penalised": seen.penalised,
        "parameters": seen.parameters,
        "bytes": seen.bytes,
        "units": sum(layer.units for layer in layers),
        "live_units": sum(layer.live_units for layer in layers),
        "inputs": layers[0].inputs,
        "live_inputs": layers[0].live_inputs,
        "lam": experiment.options.lam,
        "epochs": trainer.epoch,
        "seconds": trainer.seconds,
        "stationarity": asdict(stationarity(groups)) if experiment.options.lam else None,
    }


def _support(groups: list[Group]) -> Tensor:
    return torch.cat([w.detach().flatten() != 0 for w, _, _ in penalised(groups)])


def _advice(error: FloatingPointError, folder: RunFolder, epoch: int) -> str:
    kept = f"the checkpoint after epoch {epoch} is in {folder.checkpoint}" if epoch else "there is no checkpoint yet"
    return f"{error}; {kept}; try a smaller --lr"


def _refuse_changes(context: typer.Context, given: dict[str, Any], options: Options) -> None:
    for key, value in given.items():
        source = context.get_parameter_source(key)
        kept = getattr(options, key)
        if source is not None and source.name == "COMMANDLINE" and value != kept:
            raise ValueError(
                f"--{key.replace('_', '-')} {value} differs from the run's {kept}; a resumed run keeps its options"
            )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (item.strip() for item in text.split(","))))
