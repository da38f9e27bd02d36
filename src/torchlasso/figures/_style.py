"""The style of figures, and saving them atomically, with the same bytes for the same data."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchlasso._core.arguments import check_kind
from torchlasso._core.files import write_bytes
from torchlasso._core.text import printable
from torchlasso.html import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE, BLUE = (PALETTE[name][0] for name in ("ink", "soft", "line", "blue"))
# Lines also differ in marker and dash, not only in colour.
COLOURS = tuple(PALETTE[name][0] for name in ("blue", "orange", "green", "purple", "grey"))
MARKERS = ("o", "s", "^", "D", "v")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
SIZE = (7.0, 4.2)  # inches
SALT = "torchlasso"


def module(name: str = "matplotlib") -> Any:
    """Import a module of matplotlib.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'torchlasso[figures]'") from error


def can_draw() -> bool:
    """Return True if matplotlib is installed."""
    try:
        module("matplotlib.figure")
    except ImportError:
        return False
    return True


def axes_or_new(ax: Axes | None = None, size: tuple[float, float] = SIZE) -> Any:
    """Return the given axes, or new ones in a new figure."""
    if ax is not None:
        check_kind("ax", ax, module("matplotlib.axes").Axes, "axes of matplotlib")
        return ax
    figure = module("matplotlib.figure").Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    return figure.subplots()


def dress(axes: Any, *, x: str = "", y: str = "", title: str = "", grid: str = "both", legend: str = "") -> None:
    """Label axes and style them; ``legend``: ``"inside"`` or ``"above"`` the axes, or no legend."""
    axes.set_xlabel(x, color=SOFT)
    axes.set_ylabel(y, color=SOFT)
    axes.set_title(title, loc="left", color=INK, fontsize=11, pad=24 if legend == "above" else None)
    axes.grid(visible=bool(grid), axis=grid or "both", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    if legend:
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "borderaxespad": 0.1, "columnspacing": 1.2}
        axes.legend(frameon=False, labelcolor=INK, handlelength=1.8, **(above if legend == "above" else {}))


def plain(name: str) -> str:
    r"""Escape a name from data, so that matplotlib shows it literally: dollar signs do not start a formula.

    >>> print(plain("from $5 to $9"))
    from \$5 to \$9
    """
    return printable(name).replace("$", r"\$")


def in_per_cent(axis: Any, scale: float = 1.0) -> None:
    """Show the numbers of an axis, times ``scale``, in per cent."""
    ticker = module("matplotlib.ticker")
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{scale * value:.3g} %"))
    axis.set_minor_formatter(ticker.NullFormatter())


def save(axes: Axes, *paths: str | Path) -> None:
    """Write the figure of some axes to files, in the formats of their endings (``.png``, ``.svg``).

    Examples:
        >>> import tempfile, torchlasso as tl
        >>> axes = tl.figures.stability([0.4, 0.1, 0.0])
        >>> tl.figures.save(axes, Path(tempfile.mkdtemp()) / "stability.png")
    """
    check_kind("save: axes", axes, module("matplotlib.axes").Axes, "axes that a figure was drawn in")
    figure: Any = axes.figure
    for path in paths:
        ending = Path(path).suffix.lstrip(".")
        drawn = io.BytesIO()
        with module().rc_context({"svg.hashsalt": SALT}):
            # the same data give the same bytes: no date, and no random ids
            figure.savefig(drawn, format=ending, metadata={"Date": None} if ending == "svg" else None)
        write_bytes(path, drawn.getbuffer())
