"""Weights before and after, layer by layer."""

from __future__ import annotations

from torchlasso._core.readable import percent
from torchlasso.figures import weights as draw
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.html import figure, grid, paragraph, section
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown, weights_by_name

LAYERS = 6  # the number of layers with a histogram


@section_at(70)
def histograms_section(run: Shown) -> str:
    """Draw a histogram for each of the largest layers."""
    if not run.drawable:
        return ""
    name, before = run.before
    after = weights_by_name(run.model, run.record)
    layers = [layer for layer in run.record.layers if layer.name in before]
    largest = sorted(layers, key=lambda layer: layer.weights, reverse=True)[:LAYERS]
    figures: list[str] = []
    for layer in (layer for layer in layers if layer in largest):
        axes = draw(before[layer.name], after[layer.name], page_axes(), names=(name, "now"))
        size = after[layer.name].abs().max()
        label = (
            f"Weights of {layer.name}: {percent(layer.sparsity)} are exactly zero, the largest is {size:.3g} in size"
        )
        figures.append(figure(embedded(axes, f"weights-{len(figures)}", label), layer.name))
    less = f"The {LAYERS} largest layers. " if len(layers) > LAYERS else ""
    note = f"{less}The line shows the {name}{' model' if name == 'dense' else ''}, the area the trained weights."
    return section("Weights before and after", paragraph(note, "note"), grid(*figures)) if figures else ""
