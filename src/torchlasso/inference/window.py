"""The pixels that a convolution multiplies by."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

PerDimension = tuple[int, ...]  # one for each dimension


@dataclass(frozen=True)
class Window:
    """The window of a convolution.

    Attributes:
        kernel, stride, dilation: its sizes.
        places: the positions of the kernel with a nonzero weight.
    """

    kernel: PerDimension
    stride: PerDimension
    dilation: PerDimension
    places: tuple[PerDimension, ...]


@dataclass(frozen=True)
class Layout:
    """An input as rows of pixels, one for each grid of every s-th pixel along each dimension, with s the stride.

    Attributes:
        sizes: the sizes of the output.
        widths: the widths of the grids.
        lacking: the pixels to add at the end of each dimension, so that all grids have these widths.
        cuts: the grids, as slices of the input.
        grids: the index of the grid that each position of the kernel reads.
        starts: the first pixel that each position of the kernel reads, in the row of its grid.
        length: the number of pixels read from there on, including unused ones between the lines of the output.
    """

    sizes: PerDimension
    widths: PerDimension
    lacking: PerDimension
    cuts: tuple[tuple[slice, ...], ...]
    grids: PerDimension
    starts: PerDimension
    length: int

    @property
    def pixels(self) -> int:
        """Return the number of pixels in a row of the output."""
        return self.sizes[0] * math.prod(self.widths[1:])


@functools.lru_cache(maxsize=1024)
def layout(window: Window, pixels: PerDimension) -> Layout:
    """Return the layout of an input with these numbers of pixels along each dimension, including padding.

    Raises:
        ValueError: the input is smaller than the kernel.
    """
    dims = range(len(pixels))
    kernel, stride, dilation = window.kernel, window.stride, window.dilation
    sizes = tuple((pixels[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in dims)
    if min(sizes) < 1:
        raise ValueError(f"input must not be smaller than the kernel, {kernel}; got {pixels} pixels, including padding")
    # position k of the kernel reads the grid that begins at pixel `first`, from its pixel `shift` on
    steps = [[divmod(dilation[i] * k[i], stride[i]) for i in dims] for k in window.places]
    shifts = [tuple(shift for shift, _ in step) for step in steps]
    firsts = [tuple(first for _, first in step) for step in steps]
    grids = list(dict.fromkeys(firsts))
    widths = tuple(sizes[i] + max((shift[i] for shift in shifts), default=0) for i in dims)
    spans = [(widths[i] - 1) * stride[i] + 1 for i in dims]
    ends = [spans[i] + max((first[i] for first in grids), default=0) for i in dims]
    lines = [math.prod(widths[i + 1 :]) for i in dims]  # from a pixel of a grid to the next along each dimension
    return Layout(
        sizes,
        widths,
        tuple(max(0, ends[i] - pixels[i]) for i in dims),
        tuple(tuple(slice(grid[i], grid[i] + spans[i], stride[i]) for i in dims) for grid in grids),
        tuple(map(grids.index, firsts)),
        tuple(sum(shift[i] * lines[i] for i in dims) for shift in shifts),
        1 + sum((sizes[i] - 1) * lines[i] for i in dims),
    )
