"""Unify dimensions: bind their axes to one another, and divide an axis where the other dimension has several parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchlasso.graph.axes import (
    Axis,
    Dim,
    Product,
    Sum,
    axes_of,
    concatenated,
    count_of,
    parts_of,
    pin,
    pinned,
    product,
    resolve,
)

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
        _align(list(parts_of(a, Sum)), list(parts_of(b, Sum)), _cut, reason, meet)


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
    parts = list(parts_of(dim, Sum))
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
