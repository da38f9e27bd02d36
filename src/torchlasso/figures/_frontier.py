"""The frontier: the quality of a model at each number of weights left."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from torchlasso._core.arguments import check_sequence
from torchlasso.figures._style import COLOURS, INK, MARKERS, SOFT, axes_or_new, dress, in_per_cent, module, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TALLEST = 8  # values above so many medians are cut off, so that the others remain distinguishable


@dataclass(frozen=True)
class Series:
    """Points drawn as one line, or as a mark if there is only one.

    Attributes:
        name: the name in the legend.
        left: the share of weights left at each point; points with 0 are not drawn, since the scale is logarithmic.
        values: the error of each point as a fraction, or the loss.
        spreads: the standard error of each value, drawn as a band; may be empty.
        joined: whether a line joins the points.
    """

    name: str
    left: Sequence[float]
    values: Sequence[float]
    spreads: Sequence[float] = ()
    joined: bool = True

    def __post_init__(self) -> None:
        for name, values in (("left", self.left), ("values", self.values), ("spreads", self.spreads)):
            check_sequence(f"Series: {name}", values, Real, "a list of numbers")
        if len(self.values) != len(self.left) or len(self.spreads) not in (0, len(self.left)):
            lengths = f"{len(self.left)}, {len(self.values)} and {len(self.spreads)}"
            raise ValueError(f"Series: left, values and spreads must be equally long; got {lengths} of them")


def frontier(
    series: Sequence[Series],
    ax: Axes | None = None,
    *,
    measure: str = "error",
    percent: bool = True,
    dense: float | None = None,
    chosen: tuple[float, float] | None = None,
    title: str = "",
) -> Axes:
    """Draw the quality of models against the share of weights left, from dense to sparse.

    Args:
        series: the lines, at most five.
        ax: the axes to draw in; without them, new ones.
        measure: the name of the values, such as "validation error".
        percent: whether the values are fractions to show in per cent.
        dense: the value of the dense model, drawn as a horizontal line.
        chosen: the share left and the value of a point to mark.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no point to draw.

    Examples:
        >>> import torchlasso as tl
        >>> path = tl.figures.Series("test", left=[1.0, 0.1, 0.02], values=[0.011, 0.013, 0.019])
        >>> tl.figures.frontier([path], chosen=(0.02, 0.019)).get_xscale()
        'log'
    """
    check_sequence("frontier: series", series, Series, "a list of torchlasso.figures.Series")
    if not any(share > 0 for line in series for share in line.left):
        raise ValueError("a frontier needs at least one point")
    axes, scale = axes_or_new(ax), 100 if percent else 1
    for line, colour, marker in zip(series, COLOURS, MARKERS, strict=False):
        if any(share > 0 for share in line.left):
            _draw(axes, line, scale, colour, marker)
    if dense is not None:
        axes.axhline(scale * dense, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label="dense")
    if chosen is not None:
        axes.plot(*chosen[:1], scale * chosen[1], "o", markersize=11, markerfacecolor="none", color=INK, label="chosen")
    everything = [scale * v for line in series for share, v in zip(line.left, line.values, strict=True) if share > 0]
    median = statistics.median(everything)
    if 0 < TALLEST * median < max(everything):
        axes.set_ylim(top=TALLEST * median)
    _scale_of_shares(axes, [share for line in series for share in line.left if share > 0])
    in_per_cent(axes.xaxis, 100)
    if percent:
        in_per_cent(axes.yaxis)
    dress(axes, x="weights left (log scale)", y=measure, title=title, legend="inside")
    return axes  # type: ignore[no-any-return]


def _draw(axes: Any, line: Series, scale: float, colour: str, marker: str) -> None:
    spreads = line.spreads or [0.0] * len(line.left)
    points = sorted((p for p in zip(line.left, line.values, spreads, strict=True) if p[0] > 0), reverse=True)
    left, values, spreads = ([scale * v if k else v for v in row] for k, row in enumerate(zip(*points, strict=True)))
    is_line = line.joined and len(points) > 1
    size, dashes = (4 if len(points) > 1 else 8), ("-" if is_line else "none")
    look = {"color": colour, "marker": marker, "markersize": size, "linestyle": dashes, "linewidth": 1.8}
    axes.plot(left, values, label=plain(line.name), zorder=3, **look)
    if line.spreads:
        low, high = ([v + sign * s for v, s in zip(values, spreads, strict=True)] for sign in (-1, 1))
        if scale == 100:
            low = [max(0.0, value) for value in low]
        axes.fill_between(left, low, high, color=colour, alpha=0.15, linewidth=0, label="± one standard error")


def _scale_of_shares(axes: Any, shares: Sequence[float]) -> None:
    """Scale the axis of weights left from dense to sparse, with ticks at round shares."""
    steps = (1, 2, 5) if min(shares) > 1e-3 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(-9, 1) for step in steps]
    low = max((tick for tick in ticks if tick <= min(shares)), default=min(shares))
    high = min((tick for tick in ticks if tick >= max(shares)), default=max(shares))
    axes.set_xscale("log")
    axes.set_xlim(1.15 * high, low / 1.15)
    axes.xaxis.set_major_locator(module("matplotlib.ticker").FixedLocator(ticks))
