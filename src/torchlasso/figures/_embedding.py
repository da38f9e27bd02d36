"""Figures in a page: SVG text that takes the page's colours, light or dark, and pixel images."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchlasso.figures._style import SALT, axes_or_new, module
from torchlasso.html import PALETTE, picture, variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.0, 3.2)  # inches: the width of a phone, so that the text is legible there
WIDE, HIGH = 640, 560  # the most screen pixels for an image
LARGEST = 8  # the most screen pixels for one pixel of an image
VARIABLES = {light: variable(name) for name, (light, _) in PALETTE.items()}
NO_LAYOUT = {"figure.autolayout": False, "figure.constrained_layout.use": False}
CLEANING = (
    (r"^.*?(?=<svg)", ""),  # the XML declaration and the document type
    (r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<title>.*?</title>", ""),
    (r' (?:xmlns(?::\w+)?|version)="[^"]*"', ""),
    (r"xlink:href", "href"),
    (r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1"),
    (r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1"),
    (r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif"),
    (r"\s*\n\s*", "\n"),
)


def page_axes(size: tuple[float, float] = SIZE) -> Any:
    """Make axes for a figure in a page."""
    return axes_or_new(None, size)


def embedded(axes: Axes, name: str, label: str) -> str:
    """Return the figure of some axes as an element of a page.

    Args:
        axes: the axes of the figure.
        name: a prefix for every id, so that the ids of several figures in a page differ.
        label: a description of the figure, in words and numbers.
    """
    figure: Any = axes.figure
    buffer = io.StringIO()
    with module().rc_context({"svg.hashsalt": SALT, "svg.fonttype": "none", **NO_LAYOUT}):
        _lay_out(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    for pattern, new in CLEANING:
        text = re.sub(pattern, new, text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub("#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()


def _lay_out(figure: Any) -> None:
    """Lay a figure out for SVG, so that it is drawn once: ``savefig`` would draw all of it first, to lay it out."""
    module("matplotlib.backends.backend_svg").FigureCanvasSVG(figure)  # texts are measured as SVG draws them
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)


def places(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the positions of points in the SVG of an embedded figure; points outside are moved to the border."""
    figure: Any = axes.figure
    width, height = 72 * figure.get_size_inches()
    box = axes.get_position()
    found = []
    for point in points:
        x, y = figure.transFigure.inverted().transform(axes.transData.transform(point))
        x, y = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
        found.append((round(float(width * x), 1), round(float(height * (1 - y)), 1)))
    return found


def pictured(pixels: Tensor, label: str) -> str:
    """Return pixels as an element of a page, enlarged to be visible."""
    height, width, _ = pixels.shape
    scale = max(1, min(LARGEST, WIDE // width, HIGH // height))
    return picture(width, height, pixels.contiguous().numpy().tobytes(), label, scale)
