"""Axes, which make up the dimensions of tensors, and the laws by which two dimensions are the same.

A dimension is an axis, a product of dimensions (as after a flatten; the first part varies slowest), or a sum of
dimensions (as after a concatenation). At first, all axes are separate. If an operator needs two dimensions to have the
same meaning, such as the dimensions of two terms of a sum, they are unified: axes are bound to one another, or to a
product or a sum. The axes that are not bound in the end are the axes of the network: an index into one of them is a
unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class Axis:
    """An axis of ``size`` indices. Any index can be removed, unless there are reasons that pin the axis: all stay."""

    size: int
    pins: list[str] = field(default_factory=list)
    bound: Dim | None = None
    tied: Axis | None = None  # an axis that must keep as many indices as this one

    def __repr__(self) -> str:
        return f"Axis({self.size}{', pinned' if self.pins else ''})" if self.bound is None else repr(self.bound)


@dataclass(frozen=True, eq=False)
class Product:
    """All combinations of an index into each part; the last part varies fastest."""

    parts: tuple[Dim, ...]

    @property
    def size(self) -> int:
        return math.prod(part.size for part in self.parts)


@dataclass(frozen=True, eq=False)
class Sum:
    """The indices of one part after those of another."""

    parts: tuple[Dim, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Dim = Axis | Product | Sum


def pinned(size: int, reason: str) -> Axis:
    """Make a new pinned axis."""
    return Axis(size, [reason])


def product(parts: Iterable[Dim]) -> Dim:
    """Multiply dimensions, ignoring those of size 1; the empty product is a pinned axis of size 1."""
    parts = tuple(flat for part in parts for flat in parts_of(part, Product))
    parts = tuple(part for part in parts if part.size != 1) or parts
    return parts[0] if len(parts) == 1 else Product(parts) if parts else pinned(1, "there is only one")


def concatenated(parts: Iterable[Dim]) -> Dim:
    """Add dimensions, as a concatenation does."""
    parts = tuple(flat for part in parts for flat in parts_of(part, Sum))
    return parts[0] if len(parts) == 1 else Sum(parts)


def parts_of(dim: Dim, kind: type[Product] | type[Sum]) -> tuple[Dim, ...]:
    """Return the parts of a dimension of one kind; the dimension itself if it is of another kind."""
    dim = resolve(dim)
    return dim.parts if isinstance(dim, kind) else (dim,)


def resolve(dim: Dim) -> Dim:
    """Return the current structure of a dimension."""
    if isinstance(dim, Axis):
        return dim if dim.bound is None else _end_of_bounds(dim)
    return product(dim.parts) if isinstance(dim, Product) else concatenated(dim.parts)


def _end_of_bounds(axis: Axis) -> Dim:
    """Return the structure that a bound axis has, and bind all axes on the way to it directly."""
    passed, found = [], axis.bound
    while isinstance(found, Axis) and found.bound is not None:  # thousands of axes, where a model adds as many values
        passed.append(found)
        found = found.bound
    if found is None:
        raise ValueError("the axis is free")
    found = resolve(found)
    for each in (axis, *passed):
        each.bound = found
    return found


def axes_of(dim: Dim) -> Iterator[Axis]:
    """Yield the axes of a dimension in order, each as often as it occurs."""
    dim = resolve(dim)
    if isinstance(dim, Axis):
        yield dim
    else:
        for part in dim.parts:
            yield from axes_of(part)


def repeated(dim: Dim) -> set[Axis]:
    """Return axes that are combined with themselves, as in all pairs of an axis: an index then belongs to two units."""
    dim = resolve(dim)
    if isinstance(dim, Axis):
        return set()
    found = set().union(*map(repeated, dim.parts))
    if isinstance(dim, Product):
        every = Counter(axis for part in dim.parts for axis in set(axes_of(part)))
        found |= {axis for axis, times in every.items() if times > 1}
    return found


def pin(dim: Dim, reason: str) -> None:
    """Pin all axes of a dimension."""
    for axis in axes_of(dim):
        if reason not in axis.pins:
            axis.pins.append(reason)


def count_of(axis: Axis) -> Axis:
    """Return a representative, the same for all axes that must keep equally many indices."""
    while axis.tied is not None:
        axis = axis.tied
    return axis


def indices(dim: Dim, kept: Callable[[Axis], Tensor]) -> Tensor:
    """Return the kept indices of a dimension, given those of each axis.

    Examples:
        >>> channel, width = Axis(3), Axis(2)
        >>> keep = {channel: torch.tensor([0, 2]), width: torch.tensor([0, 1])}
        >>> indices(product((channel, width)), keep.__getitem__).tolist()
        [0, 1, 4, 5]
    """
    dim = resolve(dim)
    if isinstance(dim, Axis):
        return kept(dim)
    if isinstance(dim, Product):
        found = torch.zeros(1, dtype=torch.long)
        for part in dim.parts:
            found = (found[:, None] * part.size + indices(part, kept)[None, :]).flatten()
        return found
    starts = torch.tensor([0, *(part.size for part in dim.parts)]).cumsum(0).tolist()
    return torch.cat([indices(part, kept) + start for part, start in zip(dim.parts, starts, strict=False)])


def units_in(dim: Dim, axis: Axis) -> Tensor:
    """Return the unit of an axis that each index of a dimension belongs to; -1 for none.

    Examples:
        >>> channel, width = Axis(3), Axis(2)
        >>> units_in(product((channel, width)), channel).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    dim = resolve(dim)
    if isinstance(dim, Axis):
        return torch.arange(dim.size) if dim is axis else torch.full((dim.size,), -1)
    parts = [units_in(part, axis) for part in dim.parts]
    if isinstance(dim, Sum):
        return torch.cat(parts)
    found = parts[0]
    for part in parts[1:]:
        found = torch.maximum(found[:, None], part[None, :]).flatten()
    return found
