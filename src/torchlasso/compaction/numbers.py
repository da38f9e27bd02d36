"""Integers in attributes of modules, such as ``out_channels``: find them, and write new ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from torchlasso._core.kept import DEEPEST, children

OF_TORCH = set(vars(nn.Module()))  # attributes that every module has

Keys = tuple[str | int, ...]  # the name of an attribute, and the keys inside its value
Found = list[tuple[Keys, int | None]]


def numbers_of(module: nn.Module, seen: dict[int, Found]) -> dict[Keys, int | None]:
    """Return the integers in the attributes of a module, in containers, and in plain objects such as a config.

    Inside containers and objects, None counts as an integer without a value.

    Args:
        module: it is not changed.
        seen: the integers found so far in objects that several modules share, by ``id``.

    Examples:
        >>> module = nn.Conv2d(2, 4, (3, 1))
        >>> found = numbers_of(module, {})
        >>> found[("out_channels",)], found[("kernel_size", 0)]
        (4, 3)
    """
    numbers: dict[Keys, int | None] = {}
    for name, value in vars(module).items():
        if name not in OF_TORCH:
            if id(value) not in seen:
                seen[id(value)] = list(numbers_in(value))
            numbers |= {(name, *keys): number for keys, number in seen[id(value)] if keys or number is not None}
    return numbers


def numbers_in(value: Any, keys: Keys = (), around: tuple[int, ...] = ()) -> Iterator[tuple[Keys, int | None]]:
    """Yield the integers in a value, its items and its attributes, each with the keys that lead to it."""
    if value is None or type(value) is int:
        yield keys, value
    elif len(keys) < DEEPEST and id(value) not in around:
        for key, item in children(value).items():
            yield from numbers_in(item, (*keys, key), (*around, id(value)))


def with_number(value: Any, keys: Keys, number: int, copies: dict[int, Any]) -> Any:
    """Return a value with a new integer inside; the objects on the way to it are copied.

    Args:
        value: it is not changed.
        keys: the keys that lead to the integer.
        number: the new integer.
        copies: the copies made so far, by the ``id`` of the original; they are changed.
    """
    if not keys:
        return number
    first, rest = keys[0], keys[1:]
    if isinstance(value, tuple):
        items = list(value)
        items[int(first)] = with_number(items[int(first)], rest, number, copies)
        return value._make(items) if hasattr(value, "_make") else type(value)(items)  # a named tuple, or another
    own = copies[id(value)] if id(value) in copies else copy.copy(value)
    copies[id(value)] = copies[id(own)] = own
    inside: Any = own if isinstance(own, dict | list) else vars(own)  # setattr could run code of the class
    inside[first] = with_number(inside[first], rest, number, copies)
    return own


def set_numbers_(model: nn.Module, numbers: Iterable[tuple[nn.Module, Keys, int]]) -> Callable[[], None]:
    """Write integers into attributes of modules, and return the function that undoes it.

    An object that holds one of them, such as a config, is replaced by a copy in all modules that share it, since other
    code may use the original.
    """
    copies: dict[int, Any] = {}
    found: dict[tuple[nn.Module, str], Any] = {}
    for module, (name, *keys), number in numbers:
        place = (module, str(name))
        found[place] = with_number(found.get(place, vars(module)[str(name)]), tuple(keys), number, copies)
    for module in model.modules():
        shared = {name: copies[id(value)] for name, value in vars(module).items() if id(value) in copies}
        found |= {(module, name): value for name, value in shared.items()}
    before = {(module, name): vars(module)[name] for module, name in found}

    def write(values: Mapping[tuple[nn.Module, str], Any]) -> None:
        for (module, name), value in values.items():
            vars(module)[name] = value

    write(found)
    return lambda: write(before)
