"""The layers: the weights, units and inputs left in each, and pictures of the remaining filters."""

from __future__ import annotations

import math

from torch import Tensor, nn

from torchlasso.diagnostics.record import LayerReport, SparsityReport
from torchlasso.figures._embedding import pictured
from torchlasso.figures._filters import MOST, filter_pixels
from torchlasso.html import figure, paragraph, section
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown, weights_by_name

CONVOLUTIONS = 3  # the number of convolutions with pictures of their filters
LONG = 24  # the most filters in a picture with one row per filter
LARGEST = 40_000  # the most weights in a picture


@section_at(40)
def layers_section(run: Shown) -> str:
    """Show the table of the layers."""
    notes = ["A unit is live if any weight leads to it, an input if any weight reads it."]
    if any(layer.flops for layer in run.record.layers):
        notes.append("Live FLOPs count products of live units and live inputs, for one row.")
    if run.record.parameters < run.full.parameters:
        before, now = run.full.parameters, run.record.parameters
        notes.append(f"Dead units were removed during training: {now:,} of {before:,} parameters are left.")
    return section("Layers", run.record.html_table(), paragraph(" ".join(notes), "note"))


@section_at(50)
def filters_section(run: Shown) -> str:
    """Show the filters of the first layers, if the model reads images."""
    shown = [_filters(layer, w, shape) for layer, w, shape in _of_images(run, run.model, run.record)]
    if not any(shown):
        return ""
    legend = "Blue is positive, orange negative, pale grey exactly zero. The largest filters come first."
    return section("Remaining filters", paragraph(legend, "note"), *shown)


def first_filters(run: Shown, model: nn.Module, record: SparsityReport, most: int) -> str:
    """Show only the filters of the first layer, for one of the models of this run."""
    for layer, w, shape in _of_images(run, model, record)[:1]:
        return _filters(layer, w, shape, most)
    return ""


def _of_images(
    run: Shown, model: nn.Module, record: SparsityReport
) -> list[tuple[LayerReport, Tensor, tuple[int, ...] | None]]:
    """Return the layers whose filters can be pictures: convolutions, or a first linear layer on all pixels."""
    shape, held = run.experiment.inputs.shape, weights_by_name(model, record)
    if len(shape) != 3 or not record.layers:
        return []
    first = record.layers[0]
    if first.kind == "Linear" and first.shape[1:] == (math.prod(shape),):
        return [(first, held[first.name], shape)]
    found = [layer for layer in record.layers if layer.kind in ("Conv1d", "Conv2d") and math.prod(layer.shape[2:]) > 1]
    return [(layer, held[layer.name], None) for layer in found[:CONVOLUTIONS]]


def _filters(layer: LayerReport, w: Tensor, shape: tuple[int, ...] | None, most: int = MOST) -> str:
    rows = shape is None and w.shape[1] > 1
    most = min(most, LONG if rows else most, LARGEST // (math.prod(layer.shape[1:]) or 1))
    name = f"{layer.name}: {layer.live_units:,} of {layer.units:,} {'filters' if shape is None else 'units'} are left"
    if not layer.live_units or not most:
        return paragraph(f"{name}.")
    if layer.live_units > most:
        name += f"; shown: the largest {most}"
    what = ", each a row of kernels, one for each input channel that is read" if rows else ""
    positive, negative = int((w > 0).sum()), int((w < 0).sum())
    label = f"{name}. {positive:,} weights are positive, {negative:,} negative, {layer.zeros:,} exactly zero."
    return figure(pictured(filter_pixels(w, shape, most), label), f"{name}{what}.")
