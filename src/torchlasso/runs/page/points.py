"""The points of a path, one at a time, with a slider."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import nn

from torchlasso._core.readable import percent
from torchlasso.diagnostics.record import SparsityReport
from torchlasso.graph import UnitMap
from torchlasso.html import Bar, beside, table, tiles
from torchlasso.path import Point, badness
from torchlasso.runs.page.layers import first_filters
from torchlasso.runs.page.reading import briefly
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.page.won import Tile, flops_left

LAYERS = 40  # the most layers listed for a point
FILTERS = 16  # the most filters shown for a point

SLIDER = """
const slider = document.getElementById("point"), points = [...document.querySelectorAll(".point")];
const which = document.getElementById("which"), mark = document.getElementById("mark");
function show() {
  points.forEach((point, index) => { point.hidden = index !== slider.value - 1; });
  const shown = points[slider.value - 1], { number, x, y } = shown.dataset;
  which.value = number;
  slider.setAttribute("aria-valuetext", shown.querySelector("h3").textContent);
  if (mark) {
    mark.style.display = x ? "" : "none";
    mark.setAttribute("cx", x || 0);
    mark.setAttribute("cy", y || 0);
  }
}
slider.addEventListener("input", show);
slider.parentElement.hidden = false;
show();
"""

Mark = tuple[float, float] | None


def slider(run: Shown) -> str:
    """Make the slider; it is hidden unless scripts run."""
    count, chosen = len(run.path or ()), run.chosen.index
    return (
        '<p class="screen" hidden><label for="point">Point: <output id="which"></output></label>'
        f'<input type="range" id="point" min="1" max="{count}" step="1" value="{chosen + 1}" autocomplete="off"></p>'
    )


def shown_points(run: Shown, marks: Sequence[Mark]) -> str:
    """Show the points of a path, with only the chosen one visible; ``marks``: their positions in the figure."""
    return "".join(
        _block(run, point, model, mark, hidden=point.index != run.chosen.index)
        for (point, model), mark in zip(run.models(), marks, strict=True)
    )


def _block(run: Shown, point: Point, model: nn.Module, mark: Mark, *, hidden: bool) -> str:
    record = run.reported(model)
    units = run.units.now(model) if isinstance(run.units, UnitMap) else run.units
    count = len(run.path or ())
    heading = f"Point {point.index + 1} of {count}: {percent(point.sparsity)} zeros"
    heading += ", chosen" if point.index == run.chosen.index else ""
    layers = [layer for layer in record.layers if layer.penalised]
    rows: list[list[str | Bar]] = [
        [
            layer.name,
            Bar(1 - layer.sparsity, f"{layer.weights - layer.zeros:,}"),
            f"{layer.live_units:,}/{layer.units:,}",
            f"{layer.live_inputs:,}/{layer.inputs:,}",
        ]
        for layer in layers
    ]
    heads = ("layer", "weights left", "live units", "live inputs")
    parts = [
        table(heads, rows, heading) if len(rows) <= LAYERS else "",
        first_filters(run, model, record, FILTERS),
        briefly(run, units),
    ]
    place = "" if mark is None else f' data-x="{mark[0]}" data-y="{mark[1]}"'
    return (
        f'<div class="point" data-number="{point.index + 1} of {count}"{place}{" hidden" * hidden}>'
        f"<h3>{escape(heading)}</h3>{tiles(_numbers(run, point, record))}{beside(*parts)}</div>\n"
    )


def _numbers(run: Shown, point: Point, record: SparsityReport) -> list[Tile]:
    found: list[Tile] = []
    for name, evaluation in (("test", point.test), ("validation", point.validation)):
        if evaluation is not None:
            found.append((f"{name} {run.measure}", run.quality(badness(evaluation)), ""))
    found.append(("weights left", f"{point.nonzero:,}", f"of {record.penalised:,}"))
    if flops := flops_left(record, run.full):
        found.append(flops)
    found.append(("λ", f"{point.lam:.3g}" if point.lam else "0", "dense" if not point.lam else ""))
    return found
