"""The stability of the support: the share of weights that become zero or nonzero, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

from torchlasso._core.arguments import check_sequence
from torchlasso.figures._style import BLUE, axes_or_new, dress, in_per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 1e-2  # per cent; below this, the scale is linear down to 0


def stability(
    switched: Sequence[float],
    ax: Axes | None = None,
    *,
    x: str = "epoch",
    title: str = "",
) -> Axes:
    """Draw the share of penalised weights that became zero or nonzero in each epoch; it falls as the support settles.

    Args:
        switched: the shares in the epochs 1, 2, 3, …, as fractions.
        ax: the axes to draw in; without them, new ones.
        x: the name of the x-axis.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no shares.

    Examples:
        >>> import torchlasso as tl
        >>> tl.figures.stability([0.4, 0.1, 0.0]).get_ylabel()
        'became zero or nonzero'
    """
    check_sequence("stability: switched", switched, Real, "a list of shares")
    if not len(switched):
        raise ValueError("stability needs at least one epoch")
    axes, shares = axes_or_new(ax), [100 * share for share in switched]
    axes.set_yscale("symlog", linthresh=LEAST, linscale=0.5)
    axes.plot(range(1, len(shares) + 1), shares, color=BLUE, linewidth=1.8, marker="o", markersize=3)
    axes.set_ylim(0, max(*shares, 10 * LEAST) * 1.3)
    in_per_cent(axes.yaxis)
    axes.xaxis.get_major_locator().set_params(integer=True)
    dress(axes, x=x, y="became zero or nonzero", title=title)
    return axes  # type: ignore[no-any-return]
