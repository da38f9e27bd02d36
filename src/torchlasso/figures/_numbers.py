"""The score of models over the number of features that they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchlasso._core.arguments import check_sequence
from torchlasso.figures._frontier import Series
from torchlasso.figures._style import COLOURS, INK, MARKERS, SOFT, axes_or_new, dress, in_per_cent, module, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def numbers(
    series: Sequence[Series],
    ax: Axes | None = None,
    *,
    measure: str = "accuracy",
    percent: bool = True,
    every: float | None = None,
    chosen: tuple[float, float] | None = None,
    title: str = "",
) -> Axes:
    """Draw the score of models against the number of features that they read.

    Args:
        series: the lines, at most five, with ``left`` the numbers of features, above 0, and ``spreads`` their standard
            errors.
        ax: the axes to draw in; without them, new ones.
        measure: the name of the scores.
        percent: whether the scores are fractions to show in per cent.
        every: the score with all features, drawn as a horizontal line.
        chosen: the number of features and the score of a point to mark.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no point to draw.

    Examples:
        >>> import torchlasso as tl
        >>> path = tl.figures.Series("ours", left=[1, 5, 20], values=[0.7, 0.92, 0.95], spreads=[0.02, 0.01, 0.01])
        >>> tl.figures.numbers([path], every=0.94, chosen=(5, 0.92)).get_xscale()
        'log'
    """
    check_sequence("numbers: series", series, Series, "a list of torchlasso.figures.Series")
    if not any(len(line.left) for line in series) or min(n for line in series for n in line.left) <= 0:
        raise ValueError("numbers: the lines must have points, with numbers of features above 0")
    axes, scale = axes_or_new(ax), 100 if percent else 1
    for line, colour, marker in zip(series, COLOURS, MARKERS, strict=False):
        values = [scale * value for value in line.values]
        look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.8}
        axes.plot(line.left, values, label=plain(line.name), zorder=3, **look)
        if line.spreads:
            low, high = ([v + sign * scale * s for v, s in zip(values, line.spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(line.left, low, high, color=colour, alpha=0.15, linewidth=0)
    if every is not None:
        axes.axhline(scale * every, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label="all features")
    if chosen is not None:
        axes.plot(chosen[0], scale * chosen[1], "o", markersize=11, markerfacecolor="none", color=INK, label="chosen")
    axes.set_xscale("log")
    ticker = module("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    if percent:
        in_per_cent(axes.yaxis)
    dress(axes, x="features (log scale)", y=measure, title=title, legend="inside")
    return axes  # type: ignore[no-any-return]
