"""Evaluate a trained model for the summary of a run."""

from __future__ import annotations

import math
from dataclasses import asdict

from torch import nn

from torchlasso.diagnostics.report import report
from torchlasso.diagnostics.stationarity import is_penalised, stationarity
from torchlasso.runs.experiment import RowSplits
from torchlasso.runs.summary import Summary
from torchlasso.selection import Group
from torchlasso.training.trainer import Loss, evaluate, full_gradient


def summarise(
    model: nn.Module,
    groups: list[Group],
    loss: Loss,
    rows: RowSplits,
    *,
    epochs: int,
    seconds: float,
    minimised: Loss | None = None,
    penalised: int | None = None,
) -> Summary:
    """Evaluate a model on the test rows, and its distance from a stationary point on the training rows.

    Args:
        minimised: the loss of that point, if the training minimised another one than the reported ``loss``.
        penalised: the number of penalised weights at the start, if some may have been removed since; removed weights
            count as zeros.

    Raises:
        FloatingPointError: the test loss is infinite or NaN.
    """
    found = evaluate(model, loss, *rows.test)
    need_finite(found.loss, "test")
    full_gradient(model, minimised or loss, *rows.train)
    record, lam = report(model, groups), max(group["lam"] for group in groups if group["penalty"] is not None)
    layers = [layer for layer in record.layers if layer.penalised]
    return Summary(
        **asdict(found),
        sparsity=1 - record.nonzero / penalised if penalised else record.sparsity,
        nonzero=record.nonzero,
        penalised=penalised or record.penalised,
        parameters=record.parameters,
        bytes=record.bytes,
        units=sum(layer.units for layer in layers),
        live_units=sum(layer.live_units for layer in layers),
        inputs=layers[0].inputs,
        live_inputs=layers[0].live_inputs,
        lam=lam,
        epochs=epochs,
        seconds=seconds,
        stationarity=stationarity(groups) if is_penalised(groups) else None,
    )


def need_finite(loss: float, part: str) -> None:
    """Raise ``FloatingPointError`` unless ``loss`` is finite."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the {part} loss became {loss}")
