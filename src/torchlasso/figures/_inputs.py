"""The inputs that a network still reads: pixels of images, or ranked features of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchlasso._core.arguments import check_kind
from torchlasso.figures._pixels import as_colours, crossed_out, sheet, show, smaller, tinted
from torchlasso.figures._style import BLUE, axes_or_new, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 30  # the most features drawn
ACROSS = 5  # images in a row


def inputs(
    read: Tensor,
    ax: Axes | None = None,
    *,
    strengths: Tensor | None = None,
    images: Tensor | None = None,
    names: Sequence[str] = (),
    title: str = "",
) -> Axes:
    """Draw the inputs that are read: ranked features of a table, or pixels of images with a dot for each unread one.

    Args:
        read: bool, (features,) or (channels, height, width), as :func:`torchlasso.graph.inputs_read` returns it.
        ax: the axes to draw in; without them, new ones.
        strengths: the strength with which each is read, of the same shape.
        images: (n, channels, height, width), images to mark the pixels on, such as the mean image of each class;
            without them, the strengths are drawn.
        names: the names of the features.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no feature of a table is read, or shapes do not fit.

    Examples:
        >>> import torchlasso as tl
        >>> read = torch.tensor([True, False, True])
        >>> axes = tl.figures.inputs(read, strengths=torch.tensor([0.5, 0.0, 2.0]), names=("age", "size", "dose"))
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['dose', 'age']
    """
    check_kind("inputs: read", read, Tensor, "a mask of the inputs that are read, a tensor")
    if names and len(names) != read.numel():
        raise ValueError(f"inputs: names must have a name for each of the {read.numel()} features; got {len(names)}")
    for name, given in (("strengths", strengths), ("images", None if images is None else images[0])):
        if given is not None and given.shape != read.shape:
            raise ValueError(f"{name} must have the shape of read, {tuple(read.shape)}; got {tuple(given.shape)}")
    if read.dim() == 3:
        axes = axes_or_new(ax)
        show(axes, pixel_map(read, strengths) if images is None else pixels_on(read, images), title)
        return axes  # type: ignore[no-any-return]
    found = ranked(read, strengths, names)[:MOST]
    if not found:
        raise ValueError("no feature is read: there is nothing to draw")
    axes = axes_or_new(ax, (7, 1.2 + 0.28 * len(found)))
    axes.barh(range(len(found)), [strength for _, strength in found], color=BLUE, height=0.7)
    axes.set_yticks(range(len(found)), [plain(name) for name, _ in found])
    axes.invert_yaxis()
    dress(axes, x="is read" if strengths is None else "norm of its weights", title=title, grid="x")
    return axes  # type: ignore[no-any-return]


def ranked(read: Tensor, strengths: Tensor | None = None, names: Sequence[str] = ()) -> list[tuple[str, float]]:
    """Return the features that are read and their strengths, the strongest first; without strengths, all are 1.

    >>> ranked(torch.tensor([True, False, True]), torch.tensor([0.5, 0.0, 2.0]))
    [('input 2', 2.0), ('input 0', 0.5)]
    """
    sizes = torch.ones(read.shape) if strengths is None else strengths
    order = sizes.argsort(descending=True, stable=True).tolist()
    return [(names[i] if names else f"input {i}", float(sizes[i])) for i in order if read[i]]


def pixel_map(read: Tensor, strengths: Tensor | None = None) -> Tensor:
    """Map the strength with which each pixel is read, over all channels: uint8, (height, width, 4).

    Here and in :func:`pixels_on` a pixel of a large image stands for several: it is read if any of them is.
    """
    sizes = read.double() if strengths is None else strengths.double()
    return crossed_out(tinted(smaller(sizes.norm(dim=0)[None])[0]), _unread(read))


def pixels_on(read: Tensor, images: Tensor) -> Tensor:
    """Return images in a row, with a dot for each pixel that is not read: uint8, (height, width, 4)."""
    return sheet([crossed_out(image, _unread(read)) for image in as_colours(smaller(images))], ACROSS, gap=3)


def _unread(read: Tensor) -> Tensor:
    return smaller(read.any(dim=0)[None])[0] == 0
