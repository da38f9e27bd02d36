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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    parts = tuple(flat for part in parts for flat in _parts(part, Product))
    parts = tuple(part for part in parts if part.size != 1) or parts
    return parts[0] if len(parts) == 1 else Product(parts) if parts else pinned(1, "there is only one")


def concatenated(parts: Iterable[Dim]) -> Dim:
    """Add dimensions, as a concatenation does."""
    parts = tuple(flat for part in parts for flat in _parts(part, Sum))
    return parts[0] if len(parts) == 1 else Sum(parts)


def _parts(dim: Dim, kind: type[Product] | type[Sum]) -> tuple[Dim, ...]:
    dim = resolve(dim)
    return dim.parts if isinstance(dim, kind) else (dim,)


def resolve(dim: Dim) -> Dim:
    """Return the current structure of a dimension."""
    if isinstance(dim, Axis):
        if dim.bound is None:
            return dim
        dim.bound = resolve(dim.bound)
        return dim.bound
    return product(dim.parts) if isinstance(dim, Product) else concatenated(dim.parts)


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


Meet = Callable[[Axis, Axis], None]  # a function that makes two axes of one size the same in some way


def unify(a: Dim, b: Dim, reason: str) -> None:
    """Unify two dimensions of one size; if that cannot be expressed, pin both, for the reason."""
    _meet(a, b, reason, _bind)


def _meet(a: Dim, b: Dim, reason: str, meet: Meet) -> None:
    a, b = resolve(a), resolve(b)
    if a.size != b.size:
        raise ValueError(f"dimensions of {a.size} and {b.size} cannot be the same")
    if a is b:
        return
    if isinstance(b, Axis) and not isinstance(a, Axis):
        a, b = b, a
    if isinstance(a, Axis):
        if any(other is a for other in axes_of(b)):  # an axis cannot be a part of itself
            pin(b, reason)
        elif isinstance(b, Axis):
            meet(a, b)
        elif meet is _bind:
            _bind(a, b)
        else:
            _bind(a, _like(b))
    elif isinstance(a, Product) and isinstance(b, Product):
        _align(list(a.parts), list(b.parts), _split, reason, meet)
    else:
        _align(list(_parts(a, Sum)), list(_parts(b, Sum)), _cut, reason, meet)


def _like(dim: Dim) -> Dim:
    """Make a dimension of the same structure from new axes."""
    dim = resolve(dim)
    return Axis(dim.size) if isinstance(dim, Axis) else type(dim)(tuple(map(_like, dim.parts)))


def _bind(axis: Axis, dim: Dim) -> None:
    """Bind a free axis to a dimension."""
    for why in axis.pins:
        pin(dim, why)
    axis.bound = dim


Division = Callable[[Dim, int], "tuple[Dim, Dim] | None"]


def _align(ours: list[Dim], theirs: list[Dim], divide: Division, reason: str, meet: Meet) -> None:
    """Match two lists of parts from the front, dividing the larger part each time."""
    while ours and theirs:
        a, b = resolve(ours.pop(0)), resolve(theirs.pop(0))
        if a.size != b.size:
            larger, smaller, (rest_of_larger, rest_of_smaller) = (
                (a, b, (ours, theirs)) if a.size > b.size else (b, a, (theirs, ours))
            )
            halves = divide(larger, smaller.size)
            if halves is not None:
                larger, rest = halves
                rest_of_larger.insert(0, rest)
            elif divide is _split and (gathered := _gather([smaller, *rest_of_smaller], larger.size)):
                smaller, rest_of_smaller[:] = gathered
            else:
                for dim in (a, b, *ours, *theirs):
                    pin(dim, reason)
                return
            a, b = larger, smaller
        _meet(a, b, reason, meet)
    for dim in (*ours, *theirs):  # of size 1 each, or 0
        pin(dim, reason)


def _gather(parts: list[Dim], size: int) -> tuple[Dim, list[Dim]] | None:
    """Take parts until their product has this size, dividing the last one if necessary; also return the other parts."""
    taken: list[Dim] = []
    for place, part in enumerate(map(resolve, parts)):
        if size % part.size == 0:
            taken.append(part)
            size //= part.size
            rest = parts[place + 1 :]
        else:
            halves = _split(part, size)
            if halves is None:
                return None
            taken.append(halves[0])
            size, rest = 1, [halves[1], *parts[place + 1 :]]
        if size == 1:
            return product(taken), rest
    return None


def _split(dim: Dim, outer: int) -> tuple[Dim, Dim] | None:
    """Write a dimension as a product whose first part has this size."""
    if outer == 0 or dim.size % outer or not isinstance(dim, Axis):
        return None
    first, rest = Axis(outer), Axis(dim.size // outer)
    _bind(dim, Product((first, rest)))
    return first, rest


def _cut(dim: Dim, first: int) -> tuple[Dim, Dim] | None:
    """Write a dimension as a sum whose first part has this size."""
    if isinstance(dim, Axis):
        one, two = Axis(first), Axis(dim.size - first)
        _bind(dim, Sum((one, two)))
        return one, two
    if isinstance(dim, Product):
        outer, rest = dim.parts[0], product(dim.parts[1:])
        if first % rest.size:
            return None
        halves = _cut_anywhere(outer, first // rest.size)
        return halves and (product((halves[0], rest)), product((halves[1], rest)))
    return _cut_anywhere(dim, first)


def _cut_anywhere(dim: Dim, first: int) -> tuple[Dim, Dim] | None:
    before: list[Dim] = []
    parts = list(_parts(dim, Sum))
    while parts and first >= parts[0].size:
        first -= parts[0].size
        before.append(parts.pop(0))
    if first:
        halves = _cut(resolve(parts.pop(0)), first)
        if halves is None:
            return None
        before.append(halves[0])
        parts.insert(0, halves[1])
    return concatenated(before), concatenated(parts)


def sliced(dim: Dim, start: int, stop: int, reason: str) -> Dim:
    """Return the part of a dimension between two indices; if that cannot be expressed, pin it and return a new axis."""
    size = stop - start
    if size == dim.size:
        return dim
    if size > 0:
        at_stop = _cut_anywhere(dim, stop)
        at_start = at_stop and _cut_anywhere(at_stop[0], start)
        if at_start:
            return at_start[1]
    pin(dim, reason)
    return pinned(size, reason)


def same_count(dims: Sequence[Dim]) -> None:
    """Make the axes of equally divided dimensions keep equally many indices, though not the same ones."""
    for first, *others in zip(*map(axes_of, dims), strict=False):
        for axis in others:
            ours, theirs = count_of(first), count_of(axis)
            if ours is not theirs:
                theirs.tied = ours


def same_counts(several: Sequence[Sequence[Dim]], reason: str) -> None:
    """Make the dimensions in each list keep equally many indices, divided alike; pin them if that is impossible."""
    while any(_divide_alike(dims, reason) for dims in several):  # dividing one list may divide another
        pass
    for dims in several:
        if len({tuple(axis.size for axis in axes_of(dim)) for dim in dims}) == 1:
            same_count(dims)
        else:
            for dim in dims:
                pin(dim, reason)


def _divide_alike(dims: Sequence[Dim], reason: str) -> bool:
    """Divide dimensions of one size into parts of the same sizes; return whether any had to be divided."""
    before = [len(list(axes_of(dim))) for dim in dims]
    for dim in dims[1:]:
        _meet(dims[0], dim, reason, lambda ours, theirs: None)
    return before != [len(list(axes_of(dim))) for dim in dims]


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
