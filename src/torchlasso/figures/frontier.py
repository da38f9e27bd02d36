"""The frontier: how good a model is at each number of weights left."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchlasso.files import replacing

COLOURS = ("#3565d6", "#d1603d", "#4c9a5b", "#8b5fbf", "#8a8f94")  # told apart without red and green, too
TALLEST = 8  # times the median value: what is worse leaves the figure, so that the others can be told apart
INK, SOFT, LINE = "#1c2024", "#687076", "#dfe3e6"


@dataclass(frozen=True)
class Series:
    """What is drawn as one line.

    Attributes:
        name: for the legend.
        left: the share of weights that is left at each point, above 0.
        values: how bad each point is, an error as a fraction or a loss.
        spreads: the standard error of each value, drawn as a band; may be empty.
    """

    name: str
    left: Sequence[float]
    values: Sequence[float]
    spreads: Sequence[float] = ()


def draw_frontier(
    series: Sequence[Series],
    paths: Sequence[str | Path],
    *,
    measure: str,
    percent: bool,
    dense: float | None = None,
    chosen: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Draw the lines into files, whose endings say in which format (``.png``, ``.svg``).

    Args:
        series: the lines, at most five.
        paths: the files to write.
        measure: what the values are, such as "validation error".
        percent: whether values are fractions, to be shown in per cent.
        dense: the value of the dense model, drawn as a level.
        chosen: the share left and the value of a point to be marked.
        title: of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no point to draw.
    """
    if not any(len(line.left) for line in series):
        raise ValueError("a frontier without points cannot be drawn")
    matplotlib, figure = _figure()
    axes: Any = figure.subplots()
    scale = 100 if percent else 1
    for line, colour in zip(series, COLOURS, strict=False):
        if not line.left:
            continue
        spreads = line.spreads or [0.0] * len(line.left)
        points = sorted(zip(line.left, line.values, spreads, strict=True), reverse=True)
        left, values, spreads = (
            [scale * v if k else v for v in row] for k, row in enumerate(zip(*points, strict=True))
        )
        axes.plot(left, values, color=colour, marker="o", markersize=4, linewidth=1.8, label=line.name, zorder=3)
        if line.spreads:
            low, high = ([v + sign * s for v, s in zip(values, spreads, strict=True)] for sign in (-1, 1))
            if percent:
                low = [max(0.0, value) for value in low]
            axes.fill_between(left, low, high, color=colour, alpha=0.15, linewidth=0, label="± one standard error")
    if dense is not None:
        axes.axhline(scale * dense, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label="dense")
    if chosen is not None:
        axes.plot(*chosen[:1], scale * chosen[1], "o", markersize=11, markerfacecolor="none", color=INK, label="chosen")
    everything = [scale * value for line in series for value in line.values]
    median = statistics.median(everything)
    if 0 < TALLEST * median < max(everything):
        axes.set_ylim(top=TALLEST * median)
    _name_axes(axes, measure, percent, title)
    for path in paths:
        ending = Path(path).suffix.lstrip(".")
        with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "torchlasso"}):
            # the same data make the same file: no date, and no random names inside
            figure.savefig(temporary, format=ending, metadata={"Date": None} if ending == "svg" else None)


def _figure() -> tuple[Any, Any]:
    try:
        matplotlib = importlib.import_module("matplotlib")
        figure = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'torchlasso[figures]'") from error
    return matplotlib, figure.Figure(figsize=(7, 4.2), dpi=150, layout="constrained", facecolor="white")


def _name_axes(axes: Any, measure: str, percent: bool, title: str) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()  # from dense to sparse, as the path goes
    ticker = importlib.import_module("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    if percent:
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g} %"))
    axes.set_xlabel("weights left (log scale)", color=SOFT)
    axes.set_ylabel(measure, color=SOFT)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.legend(frameon=False, labelcolor=INK)
