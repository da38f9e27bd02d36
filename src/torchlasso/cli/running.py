"""Running an experiment: its model and its comparisons, trained, judged and written into the run's folder."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from torchlasso.certify import stationarity
from torchlasso.cli import screen
from torchlasso.cli.experiment import DENSE, LOSS_TERM, OURS, Experiment, Rows
from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.run_page import write_page
from torchlasso.cli.summary import Summary
from torchlasso.report import report
from torchlasso.selection import Group
from torchlasso.training import Trainer, evaluate, full_gradient, sparsity, support


def run(experiment: Experiment, rows: Rows, folder: RunFolder) -> Summary:
    """Train the experiment's model and its comparisons, and write all that a run folder holds.

    Raises:
        FloatingPointError: the loss or the weights became infinite or NaN.
        ValueError: a checkpoint in the folder is damaged.
        OSError: something cannot be written.
    """
    summary, model, groups = _run_variant(OURS, experiment, rows, folder)
    compared = {}
    for name in experiment.options.compare:
        part = folder.part(name)
        if not part.holds_a_run:
            part.start(experiment)
        compared[name], _, _ = _run_variant(name, experiment, rows, part)
        part.write_summary(compared[name])
    summary = replace(summary, dense=compared.get(DENSE), loss_term=compared.get(LOSS_TERM))
    write_page(folder, report(model, groups), summary)
    folder.write_summary(summary)
    screen.comparison(summary)
    screen.say(f"{folder.path}: report.html, summary.json, model.safetensors")
    return summary


def _run_variant(
    variant: str, experiment: Experiment, rows: Rows, folder: RunFolder
) -> tuple[Summary, nn.Module, list[Group]]:
    model = experiment.build_model()
    trainer, groups = experiment.trainer(variant, model, rows.train)
    metrics = _resume(trainer, folder)
    options, done = experiment.options, trainer.epoch * trainer.batches
    lam = 0.0 if variant == DENSE else options.lam
    try:
        with screen.progress(variant, trainer.steps, done, lambda: sparsity(groups), lam) as watch:
            while trainer.epoch < options.epochs:
                before = support(groups)
                loss = trainer.run_epoch(watch)
                line = _epoch(trainer, rows, loss, lam, before, support(groups))
                # the metrics first: a resume leaves out the lines of epochs that the checkpoint does not know
                folder.write_metrics([*metrics, line])
                folder.write_checkpoint(trainer.state_dict())
                metrics.append(line)
                screen.epoch_line(variant, options.epochs, line)
        summary = _summarise(trainer, rows, groups, lam)
    except FloatingPointError as error:
        kept = f"the checkpoint after epoch {len(metrics)} is in {folder.checkpoint}"
        raise FloatingPointError(
            f"{error}; {kept if metrics else 'there is no checkpoint yet'}; try a smaller --lr"
        ) from error
    folder.write_model(model.state_dict())
    return summary, model, groups


def _resume(trainer: Trainer, folder: RunFolder) -> list[dict[str, Any]]:
    """Bring the trainer to where the folder's checkpoint is; the metrics of the epochs up to there."""
    state = folder.read_checkpoint()
    if state is None:
        return []
    try:
        trainer.load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.checkpoint} is damaged or of another run ({error})") from error
    return folder.read_metrics()[: trainer.epoch]


def _epoch(trainer: Trainer, rows: Rows, loss: float, lam: float, before: Tensor, now: Tensor) -> dict[str, Any]:
    line = {
        "epoch": trainer.epoch,
        "loss": loss,
        "sparsity": 1 - now.double().mean().item(),
        "switched": (now != before).double().mean().item(),  # the share that went from or to zero
        "lam": lam,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "seconds": trainer.seconds,
    }
    if len(rows.validation[0]):
        found = evaluate(trainer.model, trainer.loss, *rows.validation)
        _need_finite(found.loss, "validation")
        line |= {f"val_{key}": value for key, value in asdict(found).items()}
    return line


def _summarise(trainer: Trainer, rows: Rows, groups: list[Group], lam: float) -> Summary:
    found = evaluate(trainer.model, trainer.loss, *rows.test)
    _need_finite(found.loss, "test")
    full_gradient(trainer.model, trainer.loss, *rows.train)
    record = report(trainer.model, groups)
    layers = [layer for layer in record.layers if layer.penalised]
    return Summary(
        **asdict(found),
        sparsity=record.sparsity,
        nonzero=record.nonzero,
        penalised=record.penalised,
        parameters=record.parameters,
        bytes=record.bytes,
        units=sum(layer.units for layer in layers),
        live_units=sum(layer.live_units for layer in layers),
        inputs=layers[0].inputs,
        live_inputs=layers[0].live_inputs,
        lam=lam,
        epochs=trainer.epoch,
        seconds=trainer.seconds,
        stationarity=stationarity(groups) if lam else None,
    )


def _need_finite(loss: float, part: str) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(f"the {part} loss became {loss}")
