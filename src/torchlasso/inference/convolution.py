"""Convolutions that multiply by nonzero weights only."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from torchlasso.inference.compiled import applies, sum_products
from torchlasso.inference.matrix import InferenceModule, SparseMatrix
from torchlasso.inference.window import Layout, Window, layout


class SparseConvolution(InferenceModule):
    """A convolution in 1, 2 or 3 dimensions with a sparse weight, as a sum over the positions of its kernel.

    y[o, p] = b[o] + Σ_k Σ_i W[o, i, k] x[i, s·p + d·k], with stride s and dilation d. For each position k, the inner
    sum is the product of a sparse matrix and the shifted, padded input. The pixels form one long row, so a shifted row
    is a part of the row and is not copied; the results at the borders are computed but not used. With a stride, the
    input is cut into grids of every s-th pixel, and the same holds for each grid.

    Args:
        conv: the convolution, with one group.
        compiled: whether a compiled function processes all positions at once, if it applies.

    Raises:
        ValueError: the convolution has several groups.

    Examples:
        >>> import torch
        >>> conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        >>> x = torch.randn(2, 3, 9, 9)
        >>> torch.allclose(SparseConvolution(conv)(x), conv(x), atol=1e-6)
        True

    Park, Li, Wen, Tang, Li, Chen and Dubey 2017 (direct sparse convolution).
    """

    bias: Tensor | None

    def __init__(self, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, compiled: bool = False) -> None:
        super().__init__()
        if conv.groups != 1:
            raise ValueError(f"conv must have one group; got {conv.groups}")
        self.in_channels, self.out_channels, self.kernel_size = conv.in_channels, conv.out_channels, conv.kernel_size
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, 1
        self.padding_mode, self.compiled = conv.padding_mode, compiled
        self.around = tuple(conv._reversed_padding_repeated_twice)  # in the format of F.pad
        places = list(itertools.product(*map(range, conv.kernel_size)))
        w = conv.weight.detach().flatten(2).permute(2, 0, 1)  # (positions, outputs, inputs)
        live = w.flatten(1).any(dim=1)
        there = tuple(place for place, lives in zip(places, live.tolist(), strict=True) if lives)
        self.window = Window(conv.kernel_size, conv.stride, conv.dilation, there)
        self.matrix = SparseMatrix(w[live].flatten(0, 1))  # the matrices of these positions, stacked vertically
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        single = input.dim() == len(self.kernel_size) + 1
        x = input[None] if single else input
        if x.dim() != len(self.kernel_size) + 2 or x.shape[1] != self.in_channels:
            raise ValueError(f"input must have {self.in_channels} channels; got the shape {tuple(input.shape)}")
        x = self._padded(x)
        how = layout(self.window, tuple(x.shape[2:]))
        out = self._sum(self._grids(x, how), how, x)
        out = out.reshape(*out.shape[:2], how.sizes[0], *how.widths[1:])
        out = out[(slice(None), slice(None), *map(slice, how.sizes))].contiguous()
        return out[0] if single else out

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self.around):
            return x
        return F.pad(x, self.around, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)

    def _grids(self, x: Tensor, how: Layout) -> list[Tensor]:
        """Return the grid that each position reads, as one row of pixels: (batch, inputs, pixels)."""
        if any(how.lacking):  # padding that no output reads
            x = F.pad(x, [n for lacking in reversed(how.lacking) for n in (0, lacking)])
        found = [x[(slice(None), slice(None), *cut)].flatten(2).contiguous() for cut in how.cuts]
        return [found[i] for i in how.grids]

    def _sum(self, grids: list[Tensor], how: Layout, like: Tensor) -> Tensor:
        """Sum the bias and the products at all positions: (batch, outputs, pixels)."""
        shape = (len(like), self.out_channels, how.pixels)
        if grids and self.compiled and applies(like, self.matrix):
            out = like.new_empty(shape)
            sum_products(self.matrix, grids, how.starts, how.length, self.bias, out)
            return out
        out = like.new_zeros(shape) if self.bias is None else self.bias[:, None].expand(shape).contiguous()
        for matrix, grid, start in zip(self.matrix.parts(self.out_channels), grids, how.starts, strict=True):
            for n in range(len(out)):
                out[n, :, : how.length].addmm_(matrix, grid[n, :, start : start + how.length])
        return out

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation")
        numbers = (f"{name}={getattr(self, name)}" for name in names)
        return ", ".join([f"{self.in_channels}", f"{self.out_channels}", *numbers, f"bias={self.bias is not None}"])
