"""A few of all combinations of arguments, such that any two values meet in one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def pairwise(where: Callable[..., bool] = lambda *_: True, **arguments: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by combinations in which each two values of different arguments meet.

    A fault that shows up in one value, or in two values together, is found as in the full product.
    """
    return _parametrize(2, where, arguments)


def each_value(where: Callable[..., bool] = lambda *_: True, **arguments: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by as few combinations as have each value of each argument in them."""
    return _parametrize(1, where, arguments)


def _parametrize(
    strength: int, where: Callable[..., bool], arguments: dict[str, Iterable[Any]]
) -> pytest.MarkDecorator:
    axes = [list(values) for values in arguments.values()]
    return pytest.mark.parametrize(list(arguments), cover(axes, strength, where), ids=_name)


def _name(value: Any) -> str:
    return getattr(value, "__name__", str(value))


def cover(axes: list[list[Any]], strength: int, where: Callable[..., bool] = lambda *_: True) -> list[tuple[Any, ...]]:
    """Return combinations, one value of each axis, that contain every group of ``size`` values of different axes.

    Greedy: the next one is a combination with the most groups that are in none so far. What a combination adds only
    becomes less, so that one pass for each number of new groups finds it.

    Args:
        axes: the values of each.
        strength: the size of a group.
        where: whether a combination may be used.
    """
    columns = list(itertools.combinations(range(len(axes)), strength))
    indices = itertools.product(*(range(len(axis)) for axis in axes))
    possible = {i: tuple(axis[k] for axis, k in zip(axes, i, strict=True)) for i in indices}
    groups = {
        i: {(column, *(i[c] for c in column)) for column in columns} for i, values in possible.items() if where(*values)
    }
    missing = set().union(*groups.values())
    chosen = []
    for new in range(len(columns), 0, -1):
        for i, found in groups.items():
            if len(found & missing) >= new:
                chosen.append(possible[i])
                missing -= found
    return chosen
