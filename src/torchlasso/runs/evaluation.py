"""Evaluate a trained model for the summary of a run."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from torchlasso.diagnostics.report import report
from torchlasso.diagnostics.stationarity import is_penalised, stationarity
from torchlasso.distributed.sharding import whole
from torchlasso.graph import inputs_read
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.quality import Judge, names_of_targets
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.summary import Summary
from torchlasso.runs.words import words_read
from torchlasso.selection import Group
from torchlasso.training.evaluation import evaluate_outputs, full_gradient, outputs_of
from torchlasso.training.regularisation import Regularisation
from torchlasso.weights import named_parameters


def summarise(
    experiment: Experiment,
    model: nn.Module,
    groups: list[Group],
    rows: RowSplits,
    *,
    epochs: int,
    seconds: float,
    regularisation: Regularisation | None = None,
    penalised: int | None = None,
) -> Summary:
    """Evaluate a model on the test rows, and its distance from a stationary point on the training rows.

    Args:
        regularisation: of the training, which may have minimised another loss than the reported one.
        penalised: the number of penalised weights at the start, if some may have been removed since; removed weights
            count as zeros.

    Raises:
        FloatingPointError: the test loss, or an output, is infinite or NaN.
    """
    judged = _judged(experiment, model, rows)
    full_gradient(model, experiment.loss, *rows.train, regularisation)
    record, lam = report(model, groups), max(group["lam"] for group in groups if group["penalty"] is not None)
    layers = [layer for layer in record.layers if layer.penalised]
    inputs, live_inputs = _inputs_read(experiment, model) or (layers[0].inputs, layers[0].live_inputs)
    return Summary(
        **judged,
        sparsity=1 - record.nonzero / penalised if penalised else record.sparsity,
        nonzero=record.nonzero,
        penalised=penalised or record.penalised,
        parameters=record.parameters,
        bytes=record.bytes,
        units=sum(layer.units for layer in layers),
        live_units=sum(layer.live_units for layer in layers),
        inputs=inputs,
        live_inputs=live_inputs,
        lam=lam,
        epochs=epochs,
        seconds=seconds,
        stationarity=stationarity(groups) if is_penalised(groups) else None,
        penalised_names=tuple(layer.name for layer in layers),
    )


def _inputs_read(experiment: Experiment, model: nn.Module) -> tuple[int, int] | None:
    """Return the number of columns or words, and of those that a model with embeddings reads; None for others."""
    text = experiment.inputs.text
    if text is None and not experiment.inputs.embedded:
        return None
    try:
        if text is not None:
            return text.words - 1, int((words_read(model, experiment)[1] > 0).sum())
        read = inputs_read(model, experiment.example)
    except ValueError:  # it cannot be followed
        return None
    return read.numel(), int(read.sum())


def judge_of(experiment: Experiment, rows: RowSplits) -> Judge:
    """Make the judge of the models of an experiment."""
    inputs = experiment.inputs
    targets = names_of_targets(experiment.options.label, inputs.outputs)
    return Judge.fit(inputs.classes, experiment.loss, rows.train[1], targets=targets, units=inputs.predictions)


def _judged(experiment: Experiment, model: nn.Module, rows: RowSplits) -> dict[str, Any]:
    """Return the fields of a summary that say how good the model is."""
    outputs = outputs_of(model, rows.test[0])
    found = evaluate_outputs(outputs, experiment.loss, rows.test[1])
    need_finite(found.loss, "test")
    fields = asdict(found)
    if Judge.is_possible():
        judge, (held_out, tested) = judge_of(experiment, rows), rows.held_groups or (None, None)
        fields["test"] = judge.judge(outputs, rows.test[1], tested)
        if len(rows.validation[0]):
            from torchlasso.runs.quality.gap import chance_of_gap  # scipy, which takes a second

            held = outputs_of(model, rows.validation[0])
            fields["validation"] = judge.judge(held, rows.validation[1], held_out)
            if not experiment.inputs.is_survival:
                fields["gap"] = chance_of_gap((held, outputs), (rows.validation[1], rows.test[1]), rows.held_groups)
    return fields


@torch.no_grad()
def weights_left(model: nn.Module) -> int:
    """Count the nonzero parameters of a model, with those that are not penalised.

    >>> weights_left(nn.Linear(3, 2)), weights_left(nn.BatchNorm1d(4))  # the second has biases of 0
    (8, 4)
    """
    return sum(int(whole(p).count_nonzero()) for _, _, p in named_parameters(model))


def need_finite(loss: float, part: str) -> None:
    """Raise ``FloatingPointError`` unless ``loss`` is finite."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the {part} loss became {loss}")
