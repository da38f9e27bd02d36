"""Blocks of several tensors at once: all the weights, biases, scales and shifts that make one unit of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded
from torchlasso.penalties.blocks import Blocks, Rebuild, Rows, Strength
from torchlasso.penalties.magnitudes import computed

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Piece:
    """Slices of one tensor, as many for each block.

    Attributes:
        tensor: its number among the tensors of the blocks.
        dim: the dimension that is sliced.
        indices: (n_blocks, slices) the indices of each block along the dimension.
    """

    tensor: int
    dim: int
    indices: Tensor

    def rows(self, w: Tensor) -> Tensor:
        """Return the weights of each block, (n_blocks, size); differentiable."""
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
        rows = rows.real if rows.is_complex() and not w.is_complex() else rows
        new = rows.reshape(self.indices.numel(), *view.shape[1:]).to(w.dtype)
        if len(view) == self._run:
            view.copy_(new)
        else:
            view[self.indices.to(w.device).flatten()] = new

    def sliced(self, stays: Tensor, length: int) -> Piece:
        """Return the piece for the indices that stay of a dimension of this length, as many for each block left."""
        number = torch.full((length,), -1)
        number[stays] = torch.arange(len(stays))
        new = number[self.indices]
        left = new[(new >= 0).any(dim=1)]
        return replace(self, indices=left[left >= 0].reshape(len(left), -1))

    @cached_property
    def _run(self) -> int | None:
        """The length of the dimension if the slices are all of it, in order, so that no index is needed."""
        flat = self.indices.flatten()
        return len(flat) if torch.equal(flat, torch.arange(len(flat))) else None


@dataclass(frozen=True, eq=False)
class Joint(Blocks):
    """Blocks that reach over several parameters of a model, which have to be in one group of the optimizer.

    The view of a family of blocks is a matrix of one block a row, (n_blocks, size).

    Attributes:
        names: the names of the parameters, in this order.
        families: blocks of one size; each is made of pieces of the parameters, one after the other.
        weighted: see :class:`~torchlasso.penalties.blocks.Partition`.
        scales: a factor on λ for each family, a number or one for each of its blocks; empty where it is 1.
    """

    names: tuple[str, ...]
    families: tuple[tuple[Piece, ...], ...]
    weighted: bool = True
    scales: tuple[Strength, ...] = ()
    stable: ClassVar[bool] = True
    joint: ClassVar[bool] = True

    def are_for(self, name: str, is_weight: bool) -> bool:
        return name in self.names

    def missing_from(self, names: Sequence[str]) -> list[str]:
        return [name for name in self.names if name not in names]

    def together(self, tensors: Sequence[T]) -> list[Sequence[T]]:
        return [tensors]

    def as_view(self) -> Blocks:
        return Rows(weighted=self.weighted)

    def views(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if any_sharded(tensors):
            raise ValueError("blocks over several parameters need whole ones, and these are sharded")
        return [torch.cat([piece.rows(tensors[piece.tensor]) for piece in pieces], dim=1) for pieces in self.families]

    def put_(self, tensors: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        for pieces, matrix in zip(self.families, new, strict=True):
            sizes = [piece.size(tensors[piece.tensor]) for piece in pieces]
            for piece, part in zip(pieces, torch.split(matrix, sizes, dim=1), strict=True):
                piece.put_(tensors[piece.tensor], part)

    def steps(self, tensors: Sequence[Tensor], steps: Sequence[Strength | None]) -> list[Strength | None]:
        if not any(isinstance(step, Tensor) or step != steps[0] for step in steps):
            return [steps[0]] * len(self.families)
        every = [torch.zeros_like(p) + (0.0 if step is None else step) for p, step in zip(tensors, steps, strict=True)]
        return [*self.views(every)]

    def strengths(
        self, tensors: Sequence[Tensor], lams: Sequence[float], weights: Tensor | None = None
    ) -> list[Strength]:
        largest = self._largest(tensors)
        own = self.scales or [1.0] * len(largest)
        found = [_like(tensors[p.tensor], scale) * lams[p.tensor] for p, scale in zip(largest, own, strict=True)]
        if weights is None:
            return [*found]
        parts = torch.split(weights, [len(piece.indices) for piece in largest])
        return [lam * part if isinstance(lam, Tensor) or lam else lam for lam, part in zip(found, parts, strict=True)]

    def owners(self, tensors: Sequence[Tensor]) -> list[int]:
        return [piece.tensor for piece in self._largest(tensors)]

    def _largest(self, tensors: Sequence[Tensor]) -> list[Piece]:
        """Return the piece of each family that has the most weights of a block."""
        return [max(pieces, key=lambda piece: piece.size(tensors[piece.tensor])) for pieces in self.families]

    def sizes_in(self, tensors: Sequence[Tensor]) -> list[list[tuple[int, int | Tensor]]]:
        return [[(piece.tensor, piece.size(tensors[piece.tensor])) for piece in pieces] for pieces in self.families]

    def sliced(
        self, before: Sequence[Tensor], after: Sequence[Tensor], stays: Callable[[int, int], Tensor | None]
    ) -> Blocks:
        families, scales = [], list[Strength]()
        for pieces, scale in zip(self.families, self.scales or [1.0] * len(self.families), strict=True):
            kept = [stays(piece.tensor, piece.dim) for piece in pieces]
            new = tuple(
                piece if some is None else piece.sliced(some, before[piece.tensor].shape[piece.dim])
                for piece, some in zip(pieces, kept, strict=True)
            )
            size = sum(piece.size(before[piece.tensor]) for piece in pieces)
            left = sum(piece.size(after[piece.tensor]) for piece in new)
            families.append(new)
            if isinstance(scale, Tensor):
                some = kept[0]
                scale = scale if some is None else scale[torch.isin(pieces[0].indices, some).any(dim=1)]
            scales.append(scale * (size / left) ** 0.5 if self.weighted else scale)
        return Joint(self.names, tuple(families), self.weighted, tuple(scales))

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise self._error()

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        raise self._error()

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise self._error()

    def _error(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} reaches over {len(self.names)} parameters at once, and is not a penalty of one "
            "alone: make the groups with torchlasso.param_groups(model, torchlasso.L1(over=...), lam=...)"
        )


def _like(w: Tensor, scale: Strength) -> Strength:
    """Return a factor in the precision and on the device of the magnitudes of a tensor."""
    return scale.to(w.device, computed(w).dtype) if isinstance(scale, Tensor) else scale
