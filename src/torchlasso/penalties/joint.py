"""Blocks of several tensors at once: all the weights, biases, scales and shifts that make one unit of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from torchlasso.penalties.blocks import Blocks, Rebuild
from torchlasso.penalties.magnitudes import computed


@dataclass(frozen=True, eq=False)
class Piece:
    """Slices of one tensor, as many for each block.

    Attributes:
        tensor: its number among the tensors of the blocks.
        dim: the dimension that is sliced.
        indices: (n_blocks, slices) those of each block along the dimension.
    """

    tensor: int
    dim: int
    indices: Tensor

    def rows(self, w: Tensor) -> Tensor:
        """(n_blocks, size) the weights of each block; differentiable."""
        w = computed(w).movedim(self.dim, 0)
        if len(w) != self._run:
            w = w.index_select(0, self.indices.to(w.device).flatten())
        return w.reshape(len(self.indices), -1)

    def size(self, w: Tensor) -> int:
        """Return the number of weights of each block that are here."""
        return self.indices.shape[1] * (w.numel() // w.shape[self.dim])

    def put_(self, w: Tensor, rows: Tensor) -> None:
        """Write the weights of each block."""
        view = w.movedim(self.dim, 0)
        new = rows.reshape(self.indices.numel(), *view.shape[1:]).to(w.dtype)
        if len(view) == self._run:
            view.copy_(new)
        else:
            view[self.indices.to(w.device).flatten()] = new

    @cached_property
    def _run(self) -> int | None:
        """The length of the dimension if the slices are all of it, in order, so that nothing has to be looked up."""
        flat = self.indices.flatten()
        return len(flat) if torch.equal(flat, torch.arange(len(flat))) else None


@dataclass(frozen=True, eq=False)
class Joint(Blocks):
    """Blocks that reach over several parameters of a model, which have to be in one group of the optimizer.

    Attributes:
        names: of the parameters.
        families: blocks of one size; each is what pieces of the parameters say of it, one after the other.
        weighted: see :class:`~torchlasso.penalties.blocks.Partition`.
        scales: what λ of each family is multiplied by besides; without it 1.
    """

    names: tuple[str, ...]
    families: tuple[tuple[Piece, ...], ...]
    weighted: bool = True
    scales: tuple[float, ...] = ()
    stable: ClassVar[bool] = True

    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """For each family its blocks as rows, (n_blocks, size); differentiable.

        Args:
            tensors: the parameters, or what is known of each of their elements, in the order of ``names``.
        """
        return [torch.cat([piece.rows(tensors[piece.tensor]) for piece in pieces], dim=1) for pieces in self.families]

    def put_(self, tensors: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Write what :meth:`gather` gives; what is of no block stays as it is."""
        for pieces, matrix in zip(self.families, rows, strict=True):
            sizes = [piece.size(tensors[piece.tensor]) for piece in pieces]
            for piece, part in zip(pieces, torch.split(matrix, sizes, dim=1), strict=True):
                piece.put_(tensors[piece.tensor], part)

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise self._error()

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        raise self._error()

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise self._error()

    def _error(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} reaches over {len(self.names)} parameters at once, and is no penalty of one alone: "
            "make the groups with torchlasso.param_groups(model, torchlasso.L1(over=...), lam=...)"
        )
