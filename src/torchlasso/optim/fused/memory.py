"""Runs: parameters, their gradients and their buffers as stretches of memory that a kernel can go along.

A run is what lies densely in memory: one weight after the other, in the same order for all tensors that take part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded, is_sharded
from torchlasso.penalties.blocks import Partition

# Rows are worked on in pieces of so many weights, which the caches still hold when the second pass over them comes.
PIECE = 131072


@dataclass(frozen=True)
class Runs:
    """Flat views of memory, for each of which a kernel is called.

    Attributes:
        columns: the tensors, a column for each part that they take; those of a row are of one size.
        sizes: for each run its length, or its numbers of rows and of columns.
        factors: for each run what the first of the numbers is multiplied by; empty for one.
    """

    columns: Sequence[Sequence[Tensor]]
    sizes: Sequence[Sequence[int]]
    factors: Sequence[float] = ()

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(map(math.prod, zip(*self.sizes, strict=True)))


def runs_of(columns: list[list[Any]]) -> tuple[list[tuple[list[int], Runs]], list[int], list[int]]:
    """The positions of what are runs, with these; of what torch's own step takes one by one; and of all other things.

    Args:
        columns: weights, gradients and each of the buffers, None where there is none.
    """
    if not any_sharded(columns[0]):
        runs = _contiguous(columns)
        if runs is not None:
            return [(list(range(len(columns[0]))), runs)], [], []
    alike: dict[torch.dtype, tuple[list[int], list[list[Any]]]] = {}
    odd: list[int] = []
    foreign: list[int] = []
    for i, row in enumerate(zip(*columns, strict=True)):
        run = _run_of(*row)
        if run is not None:
            positions, rows = alike.setdefault(run[0].dtype, ([], []))
            positions.append(i)
            rows.append(run)
        else:
            (odd if _is_plain(row[0]) and _is_plain(row[1]) else foreign).append(i)
    return [(positions, _flat(rows)) for positions, rows in alike.values()], odd, foreign


def _flat(rows: Sequence[Sequence[Tensor]]) -> Runs:
    columns = list(zip(*rows, strict=True))
    return Runs(columns, [list(map(Tensor.numel, columns[0]))] if columns else [[]])


def _contiguous(columns: list[list[Any]]) -> Runs | None:
    """The tensors as runs if they all are contiguous, floating-point, of one precision and on the CPU: a quick look."""
    dtype = columns[0][0].dtype
    try:
        lengths = list(map(Tensor.numel, columns[0]))
        for column in columns:
            if (
                not all(map(Tensor.is_contiguous, column))
                or not all(map(_is_cpu, column))
                or {dtype} != set(map(_dtype, column))
                or lengths != list(map(Tensor.numel, column))
            ):
                return None
    except (RuntimeError, TypeError):  # a missing buffer, a sparse gradient
        return None
    return Runs(columns, [lengths]) if dtype.is_floating_point else None


_dtype, _is_cpu = attrgetter("dtype"), attrgetter("is_cpu")


def _run_of(w: Any, grad: Any, *buffers: Any) -> list[Tensor] | None:
    """Weights, gradient and buffers with all their elements in the same order in memory, or None.

    A gradient in another order is copied into that of the weights.
    """
    if any(b is None for b in buffers) or w.is_sparse or grad.is_sparse:
        return None
    if is_sharded(w):
        if any(t.placements != w.placements for t in (grad, *buffers)):
            return None
        w, grad, *buffers = [t.to_local() for t in (w, grad, *buffers)]  # type: ignore[assignment]
    forms = {(t.layout, t.device.type, t.dtype, t.shape) for t in (w, grad, *buffers)}
    if len(forms) > 1 or not _is_plain(w) or not _is_dense(w) or any(b.stride() != w.stride() for b in buffers):
        return None
    if grad.stride() != w.stride():
        grad = torch.empty_strided(w.shape, w.stride(), dtype=w.dtype).copy_(grad)
    return [w, grad, *buffers]


def _is_plain(t: Tensor) -> bool:
    return t.layout == torch.strided and t.device.type == "cpu" and t.dtype.is_floating_point


def _is_dense(w: Tensor) -> bool:
    """Return whether the weights lie in memory without gaps and none of them twice."""
    expected = 1
    for stride, length in sorted(zip(w.stride(), w.shape, strict=True)):
        if length != 1:
            if stride != expected:
                return False
            expected *= length
    return True


def in_rows(positions: list[int], runs: Runs, over: Partition) -> tuple[tuple[list[int], Runs] | None, list[int], Runs]:
    """The runs whose blocks are rows, in pieces, with the positions they are of; and those for which it is not so."""
    found, others = [], []
    pieces: list[tuple[list[Tensor], int, int]] = []
    for i, run in zip(positions, zip(*runs.columns, strict=True), strict=True):
        size = over.in_memory(run[0]) if run[0].is_contiguous() else None
        if size is None:
            others.append((i, run))
            continue
        found.append(i)
        n, width = size
        height = max(1, PIECE // width)
        if n <= height:
            pieces.append((list(run), n, width))
            continue
        for piece in zip(*(t.view(n, width).split(height) for t in run), strict=True):
            pieces.append((list(piece), len(piece[0]), width))
    if not found:
        return None, positions, runs
    tensors, heights, widths = zip(*pieces, strict=True)
    rows = Runs(list(zip(*tensors, strict=True)), (heights, widths), [w**0.5 if over.weighted else 1.0 for w in widths])
    left = _flat([run for _, run in others])
    return (found, rows), [i for i, _ in others], left
