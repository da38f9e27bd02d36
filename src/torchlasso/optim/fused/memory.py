"""Flat views: parameters, their gradients and their buffers as stretches of memory that a kernel passes over.

A parameter has one if it lies densely in memory, one weight after the other, in the same order as its gradient and
its buffers.
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


@dataclass(frozen=True)
class FlatViews:
    """Stretches of memory, for each of which a kernel is called.

    Attributes:
        columns: weights, gradients and each of the buffers; the tensors of a row are of one size.
        sizes: the length of each view, or its numbers of rows and of columns.
        factors: the factor on the kernel's first number for each view; empty where all are 1.
    """

    columns: Sequence[Sequence[Tensor]]
    sizes: Sequence[Sequence[int]]
    factors: Sequence[float] = ()

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(map(math.prod, zip(*self.sizes, strict=True)))


def flat_views_of(columns: list[list[Any]]) -> tuple[list[tuple[list[int], FlatViews]], list[int], list[int]]:
    """Return the flat views of the rows of ``columns``, by precision, and the positions of the rows without one.

    Args:
        columns: weights, gradients and each of the buffers, None where there is none.

    Returns:
        The positions of flat views and the views; the positions of rows in another layout, which torch's own step
        takes one by one; the positions of all others, such as sparse gradients.
    """
    if not any_sharded(columns[0]):
        views = _contiguous(columns)
        if views is not None:
            return [(list(range(len(columns[0]))), views)], [], []
    alike: dict[torch.dtype, tuple[list[int], list[list[Any]]]] = {}
    one_by_one: list[int] = []
    foreign: list[int] = []
    for i, row in enumerate(zip(*columns, strict=True)):
        view = _flat_view_of(*row)
        if view is not None:
            positions, rows = alike.setdefault(view[0].dtype, ([], []))
            positions.append(i)
            rows.append(view)
        else:
            (one_by_one if _is_plain(row[0]) and _is_plain(row[1]) else foreign).append(i)
    return [(positions, _flat(rows)) for positions, rows in alike.values()], one_by_one, foreign


def _flat(rows: Sequence[Sequence[Tensor]]) -> FlatViews:
    columns = list(zip(*rows, strict=True))
    return FlatViews(columns, [list(map(Tensor.numel, columns[0]))] if columns else [[]])


def _contiguous(columns: list[list[Any]]) -> FlatViews | None:
    """Return the views if all tensors are contiguous, floating-point, of one precision and on the CPU: a quick look."""
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
    return FlatViews(columns, [lengths]) if dtype.is_floating_point else None


_dtype, _is_cpu = attrgetter("dtype"), attrgetter("is_cpu")


def _flat_view_of(w: Any, grad: Any, *buffers: Any) -> list[Tensor] | None:
    """Return weights, gradient and buffers with all their elements in the same order in memory, or None.

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


def row_views_of(
    positions: list[int], views: FlatViews, over: Partition
) -> tuple[tuple[list[int], FlatViews] | None, list[int], FlatViews]:
    """Return the views whose blocks are rows, with their positions; and the views whose blocks are not."""
    found, others = [], []
    rows: list[tuple[Sequence[Tensor], int, int]] = []
    for i, view in zip(positions, zip(*views.columns, strict=True), strict=True):
        size = over.in_memory(view[0]) if view[0].is_contiguous() else None
        if size is None:
            others.append((i, view))
        else:
            found.append(i)
            rows.append((view, *size))
    if not found:
        return None, positions, views
    tensors, heights, widths = zip(*rows, strict=True)
    factors = [w**0.5 if over.weighted else 1.0 for w in widths]
    left = _flat([view for _, view in others])
    of_rows = FlatViews(list(zip(*tensors, strict=True)), (heights, widths), factors)
    return (found, of_rows), [i for i, _ in others], left
