"""Values that modules keep as attributes, also in lists, tuples, dictionaries and plain objects (configurations)."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Key = str | int
DEEPEST = 6

# Objects that are not looked into: modules are visited for themselves, and copies of a model share the others.
CLOSED = (nn.Module, Tensor, type, enum.Enum, types.ModuleType, types.FunctionType, types.MethodType)


def children(value: Any) -> Mapping[Key, Any]:
    """Return the parts of a container by key, index or attribute; nothing for any other value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, CLOSED) or hasattr(type(value), "__deepcopy__"):
        return {}
    return getattr(value, "__dict__", {})


def kept(module: nn.Module) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield the attributes of a module and their parts that have no parts themselves, with the keys that lead there.

    Parameters, buffers and submodules are not among them. An object that occurs twice is visited once.
    """
    apart = nn.Module().__dict__.keys()
    seen: set[int] = set()

    def visit(keys: tuple[Key, ...], value: Any) -> Iterator[tuple[tuple[Key, ...], Any]]:
        parts = children(value) if len(keys) < DEEPEST else {}
        if not parts:
            yield keys, value
        elif id(value) not in seen:
            seen.add(id(value))
            for key, part in list(parts.items()):
                if isinstance(key, str | int):
                    yield from visit((*keys, key), part)

    for name, value in list(vars(module).items()):
        if name not in apart:
            yield from visit((name,), value)


def found_at(module: nn.Module, keys: tuple[Key, ...]) -> Any:
    """Return the value that keys lead to."""
    value: Any = vars(module)
    for key in keys:
        value = children(value)[key]
    return value


def put_(module: nn.Module, keys: tuple[Key, ...], new: Any) -> None:
    """Write a value where keys lead to; tuples on the way are made anew, everything else is changed in place."""
    _put(vars(module), keys, new)


def _put(container: Any, keys: tuple[Key, ...], new: Any) -> Any:
    """Return the container with the value in it: the same object, unless it is a tuple."""
    key, *rest = keys
    if rest:
        new = _put(children(container)[key], tuple(rest), new)
    if isinstance(container, tuple):
        changed = [new if place == key else part for place, part in enumerate(container)]
        return container._make(changed) if hasattr(container, "_make") else type(container)(changed)
    parts: Any = container if isinstance(container, dict | list) else vars(container)
    parts[key] = new
    return container
