"""The training curves: loss, error, zeros and λ by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchlasso.figures import training as draw
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.figures._training import FRACTIONS, NAMES, points_of
from torchlasso.html import figure, grid, paragraph, section
from torchlasso.path import Point
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown

MOST = 5  # curves in a figure
DRAWN = ("loss", "val_error", "val_loss", "sparsity", "lam")


@section_at(30)
def training_section(run: Shown) -> str:
    """Draw the training curves of a run and its comparisons, or of some points of a path."""
    lines = run.metrics if run.path is None else _of_points(run.path)
    if not run.drawable or not lines:
        return ""
    figures = []
    less = "val_loss" if run.summary.error is not None else None
    by = [] if run.summary.kept is None else [f"val_{run.summary.kept.measure}"]
    for what in dict.fromkeys([*(what for what in DRAWN if what != less), *by]):
        found = {name: points for name, epochs in lines.items() if (points := points_of(epochs, what))}
        if not found:
            continue
        ends = (
            f"{name} from {_shown(what, points[0][1])} to {_shown(what, points[-1][1])}"
            for name, points in found.items()
        )
        drawing = embedded(
            draw(lines, what, page_axes()), f"training-{what}", f"{NAMES[what]} by epoch: {'; '.join(ends)}"
        )
        figures.append(figure(drawing))
    curves = "" if run.path is None else "Each curve is the training of a point, named by its share of zeros."
    return section("Training", paragraph(curves) if curves else "", grid(*figures))


def _of_points(points: Sequence[Point]) -> dict[str, list[dict[str, Any]]]:
    """Return the losses by epoch of the dense point and of others, evenly among those that follow it."""
    known = [point for point in points if point.losses]
    some = sorted({round(i * (len(known) - 1) / (MOST - 1)) for i in range(MOST)}) if known else []
    return {
        ("dense" if known[i].index == 0 else f"{100 * known[i].sparsity:.3g} %"): [
            {"epoch": epoch, "loss": loss} for epoch, loss in enumerate(known[i].losses, start=1)
        ]
        for i in some
    }


def _shown(what: str, value: float) -> str:
    return f"{100 * value:.3g} %" if what in FRACTIONS else f"{value:.3g}"
