"""Pictures of the nonzero filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchlasso._core.arguments import check_kind, check_whole
from torchlasso.figures._pixels import sheet, show, tinted
from torchlasso.figures._style import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 64  # the most filters drawn, and the most kernels of a filter
ACROSS = 16  # kernels in a row, if filters are short


def filters(
    w: Tensor, ax: Axes | None = None, *, shape: Sequence[int] | None = None, most: int = MOST, title: str = ""
) -> Axes:
    """Draw the filters of a convolution that are not zero, the largest first.

    A filter is a row of kernels, one for each input channel that any filter reads; short filters share a row. Positive
    weights are blue, negative weights orange, zeros pale grey.

    Args:
        w: (filters, channels, height, width), or without the height.
        ax: the axes to draw in; without them, new ones.
        shape: (channels, height, width) of the input images, for the weight of a linear layer, (units, inputs).
        most: the largest number of filters to draw.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: all filters are zero, or the weight does not have the shape of filters.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.randn(24, 1, 5, 5)
        >>> w[::6] = 0  # four are not drawn
        >>> axes = tl.figures.filters(w)
        >>> axes.images[0].get_array().shape  # sixteen in a row, a pixel between them
        (11, 95, 4)
    """
    check_kind("filters: w", w, Tensor, "the weight of a layer, a tensor")
    check_whole("filters: most", most)
    pixels = filter_pixels(w, shape, most)
    axes = axes_or_new(ax)
    show(axes, pixels, title)
    return axes  # type: ignore[no-any-return]


@torch.no_grad()
def filter_pixels(w: Tensor, shape: Sequence[int] | None = None, most: int = MOST) -> Tensor:
    """Return the pixels of :func:`filters`: uint8, (height, width, 4)."""
    if shape is not None:
        if w.numel() != len(w) * math.prod(shape):
            raise ValueError(f"filters of shape {tuple(shape)} do not make a weight of shape {tuple(w.shape)}")
        w = w.reshape(len(w), *shape)
    if w.dim() == 3:
        w = w[:, :, None]
    if w.dim() != 4:
        raise ValueError(f"filters are of shape (filters, channels, height, width); got {tuple(w.shape)}")
    if not w.any():
        raise ValueError("all filters are zero: there is nothing to draw")
    w = _largest(_largest(w, most).transpose(0, 1), MOST, in_order=True).transpose(0, 1)
    columns = max(1, ACROSS // w.shape[1]) * w.shape[1]
    return sheet(list(tinted(w).flatten(0, 1)), columns)


def _largest(w: Tensor, most: int, in_order: bool = False) -> Tensor:
    """Return the largest nonzero slices, the largest first or in their order."""
    sizes = w.flatten(1).double().norm(dim=1)
    chosen = sizes.argsort(descending=True, stable=True)[: min(most, int((sizes > 0).sum()))]
    return w[chosen.sort().values if in_order else chosen]
