"""The stability of the support: how many weights go from or to zero, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

from torchlasso._core.arguments import check_sequence
from torchlasso.figures._style import BLUE, axes_or_new, dress, in_per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 1e-2  # per cent: below it the scale is linear, down to none


def stability(
    switched: Sequence[float],
    ax: Axes | None = None,
    *,
    x: str = "epoch",
    title: str = "",
) -> Axes:
    """Draw which share of the penalised weights went from or to zero in each epoch: a support that is found stays.

    Args:
        switched: the shares, as fractions, of the epochs 1, 2, 3, ….
        ax: the axes to draw in; without them, new ones.
        x: what there is a share for.
        title: of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw.

    Examples:
        >>> import torchlasso as tl
        >>> tl.figures.stability([0.4, 0.1, 0.0]).get_ylabel()
        'went from or to zero'
    """
    check_sequence("stability: switched", switched, Real, "a list of shares")
    if not len(switched):
        raise ValueError("the stability of no epochs cannot be drawn")
    axes, shares = axes_or_new(ax), [100 * share for share in switched]
    axes.set_yscale("symlog", linthresh=LEAST, linscale=0.5)
    axes.plot(range(1, len(shares) + 1), shares, color=BLUE, linewidth=1.8, marker="o", markersize=3)
    axes.set_ylim(0, max(*shares, 10 * LEAST) * 1.3)
    in_per_cent(axes.yaxis)
    axes.xaxis.get_major_locator().set_params(integer=True)
    dress(axes, x=x, y="went from or to zero", title=title)
    return axes  # type: ignore[no-any-return]
