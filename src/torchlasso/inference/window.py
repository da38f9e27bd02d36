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
        places: those of the kernel at which there is a weight.
    """

    kernel: PerDimension
    stride: PerDimension
    dilation: PerDimension
    places: tuple[PerDimension, ...]


@dataclass(frozen=True)
class Layout:
    """An input as rows of pixels, each of a grid of every s-th pixel along each dimension, s being the stride.

    Attributes:
        sizes: of the output.
        widths: of the grids.
        lacking: how many pixels the input lacks, at the end of each dimension, for all grids to have these widths.
        cuts: the grids, as slices of the input.
        grids: for each place of the kernel which of them it reads.
        starts: for each place of the kernel the first pixel that it reads, in the row of its grid.
        length: how many it reads from there on: with those between the lines of the output, which are for nothing.
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
    """Return the layout of an input with so many pixels along each dimension, padding included.

    Raises:
        ValueError: it is smaller than the kernel.
    """
    dims = range(len(pixels))
    kernel, stride, dilation = window.kernel, window.stride, window.dilation
    sizes = tuple((pixels[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in dims)
    if min(sizes) < 1:
        raise ValueError(f"input must not be smaller than the kernel, {kernel}; got {pixels} pixels, padding included")
    # place k of the kernel reads the grid that begins at pixel `first`, from its pixel `shift` on
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
