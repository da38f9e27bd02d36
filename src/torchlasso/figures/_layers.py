"""Layers as bars: the total of each, and the part that remains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torchlasso._core.arguments import check_kind
from torchlasso._core.readable import short
from torchlasso._core.specs import unknown
from torchlasso.diagnostics.record import LayerReport, SparsityReport
from torchlasso.figures._style import BLUE, INK, LINE, axes_or_new, dress, module, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The total of a layer, and the part that remains.
PARTS: Mapping[str, tuple[str, Callable[[LayerReport], tuple[float, float]]]] = {
    "weights": ("weights", lambda layer: (layer.weights, layer.weights - layer.zeros)),
    "units": ("units", lambda layer: (layer.units, layer.live_units)),
    "inputs": ("inputs", lambda layer: (layer.inputs, layer.live_inputs)),
    "bytes": ("bytes", lambda layer: (layer.bytes, layer.bytes * layer.live_weights / layer.weights)),
    "flops": ("FLOPs", lambda layer: (layer.flops or 0, layer.live_flops or 0)),
}


def layers(record: SparsityReport, what: str = "weights", ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the total of each layer as a pale bar, and the part that remains as a dark one.

    Args:
        record: a report on a model (:func:`torchlasso.report`).
        what: ``"weights"`` (not zero), ``"units"`` and ``"inputs"`` (live), ``"bytes"`` and ``"flops"`` (of live units
            and inputs). FLOPs are known if the report was made with example inputs.
        ax: the axes to draw in; new ones by default.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``what`` is something else, or there is nothing to draw.

    Examples:
        >>> import torch, torchlasso as tl
        >>> record = tl.report(torch.nn.Linear(3, 2), example_inputs=torch.randn(1, 3))
        >>> tl.figures.layers(record, "flops").get_xlabel()
        'FLOPs'
    """
    check_kind("layers: record", record, SparsityReport, "what torchlasso.report(model) returns")
    if what not in PARTS:
        raise unknown("part of layers", what, PARTS)
    name, parts = PARTS[what]
    found = {layer.name: parts(layer) for layer in record.layers}
    if not any(whole for whole, _ in found.values()):
        hint = "; give report example_inputs" if what == "flops" else ""
        raise ValueError(f"the report has no layers with {name} to draw{hint}")
    axes = axes_or_new(ax, (7, 1.2 + 0.35 * len(found)))
    places = range(len(found))
    axes.barh(places, [whole for whole, _ in found.values()], color=LINE, height=0.7, label="all")
    axes.barh(places, [left for _, left in found.values()], color=BLUE, height=0.7, label="left")
    for place, (whole, left) in zip(places, found.values(), strict=True):
        text = f"{short(left).strip()} of {short(whole).strip()}"
        axes.annotate(text, (whole, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.set_yticks(places, list(map(plain, found)))
    axes.invert_yaxis()  # from the inputs on, downwards
    axes.xaxis.set_major_formatter(module("matplotlib.ticker").FuncFormatter(lambda value, _: short(value).strip()))
    dress(axes, x=name, title=title, grid="x", legend="above")
    return axes  # type: ignore[no-any-return]
