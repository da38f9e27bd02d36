"""Histograms of weights, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchlasso._core.arguments import check_kind
from torchlasso._core.readable import percent
from torchlasso.figures._style import BLUE, SOFT, axes_or_new, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60


@torch.no_grad()
def weights(
    before: Tensor,
    after: Tensor,
    ax: Axes | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    title: str = "",
) -> Axes:
    """Draw histograms of the weights before and after; exact zeros are counted in the legend and not drawn.

    Args:
        before, after: weights, of any shapes.
        ax: the axes to draw in; without them, new ones.
        names: the names of the two in the legend.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no weights.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.linspace(-1, 1, 100)
        >>> axes = tl.figures.weights(w, w.where(w.abs() > 0.5, 0.0))
        >>> [text.get_text() for text in axes.get_legend().get_texts()]
        ['before: 0.0 % zeros', 'after: 50.0 % zeros']
    """
    for name, w in (("before", before), ("after", after)):
        check_kind(f"weights: {name}", w, Tensor, "weights, a tensor")
    both = [w.detach().flatten().double().cpu() for w in (before, after)]
    if not all(map(len, both)):
        raise ValueError("weights: a histogram needs at least one weight")
    axes, end = axes_or_new(ax), float(max(w.abs().max() for w in both)) or 1.0
    edges = torch.linspace(-end, end, BINS + 1, dtype=torch.float64)
    for w, name, filled in zip(both, names, (False, True), strict=True):
        counts = torch.histogram(w[w != 0], edges).hist.tolist()
        label = f"{plain(name)}: {percent(float((w == 0).double().mean()))} zeros"
        look = {"color": BLUE, "alpha": 0.8} if filled else {"color": SOFT, "linewidth": 1.4}
        axes.stairs(counts, edges.tolist(), fill=filled, label=label, zorder=2 if filled else 3, **look)
    axes.set_yscale("symlog", linthresh=1, linscale=0.5)
    axes.set_ylim(bottom=0)
    dress(axes, x="weight", y="weights (log scale)", title=title, legend="above")
    return axes  # type: ignore[no-any-return]
