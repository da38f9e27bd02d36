"""The paths of stability selection: the share of the halves of the data in which each feature is selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from torchlasso.figures._style import COLOURS, DASHES, SOFT, axes_or_new, dress, in_per_cent, module, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHOSEN = COLOURS[:4]  # the fifth is grey, as the others are
MOST = 15  # the most selected features with a name beside their line
APART = 0.045  # the least distance of two names, as a share of the axis
BEYOND = 1.02  # where names begin, relative to the width of the axes


def frequencies(
    shares: Any,
    lams: Any,
    selected: Any,
    ax: Axes | None = None,
    *,
    names: Sequence[str] = (),
    x: str = "λ",
    title: str = "",
) -> Axes:
    """Draw the stability path of each feature: selected ones with their names, the others thin and grey.

    Args:
        shares: (points, features), such as ``StabilitySelection.frequencies_``.
        lams: (points,) the thresholds, falling.
        selected: (features,) a mask of the selected features.
        ax: the axes to draw in; without them, new ones.
        names: the names of the features.
        x: the name of the x-axis.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no points, or shapes do not fit.

    Examples:
        >>> import torchlasso as tl
        >>> axes = tl.figures.frequencies([[0.5, 0.0], [1.0, 0.1]], [0.2, 0.1], [True, False], names=("dose", "age"))
        >>> [text.get_text() for text in axes.texts]
        ['dose']
    """
    share, lam, chosen = (torch.as_tensor(each) for each in (shares, lams, selected))
    if share.dim() != 2 or not len(share):
        raise ValueError(f"frequencies: shares must be (points, features), with points; got {tuple(share.shape)}")
    for name, given, size in (("lams", lam, share.shape[0]), ("selected", chosen, share.shape[1])):
        if given.shape != (size,):
            raise ValueError(f"frequencies: {name} must have the shape ({size},); got {tuple(given.shape)}")
    if names and len(names) != share.shape[1]:
        raise ValueError(f"frequencies: names must have a name for each of the {share.shape[1]} features")
    axes = axes_or_new(ax)
    lines = 100 * share.double()
    axes.plot(lam, lines[:, ~chosen], color=SOFT, alpha=0.35, linewidth=0.8, drawstyle="steps-post")
    found = chosen.nonzero()[:, 0].tolist()
    found.sort(key=lambda i: float(share[:, i].mean()), reverse=True)
    for place, i in enumerate(found):
        colour, dash = CHOSEN[place % len(CHOSEN)], DASHES[place % len(DASHES)]
        axes.plot(lam, lines[:, i], color=colour, linestyle=dash, linewidth=1.6, drawstyle="steps-post")
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticker = module("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_ylim(0, 102)
    axes.axhline(50, color=SOFT, linewidth=0.8, linestyle=":")
    heights = _spread([float(share[-1, i]) for i in found[:MOST]])
    for place, (i, height) in enumerate(zip(found, heights, strict=False)):
        label = plain(names[i]) if names else f"feature {i}"
        axes.text(
            BEYOND,
            height,
            label,
            transform=axes.transAxes,
            va="center",
            color=CHOSEN[place % len(CHOSEN)],
            fontsize=8,
        )
    in_per_cent(axes.yaxis)
    dress(axes, x=x, y="halves that select it", title=title)
    return axes  # type: ignore[no-any-return]


def _spread(heights: list[float]) -> list[float]:
    """Move heights apart, so that names do not overlap, in their order.

    >>> [round(height, 3) for height in _spread([1.0, 1.0, 0.5])]
    [1.0, 0.955, 0.5]
    """
    found, last = dict[int, float](), float("inf")
    for i in sorted(range(len(heights)), key=lambda i: -heights[i]):
        last = found[i] = min(heights[i], last - APART)
    return [found[i] for i in range(len(heights))]
