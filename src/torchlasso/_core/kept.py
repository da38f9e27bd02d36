"""Values that modules keep as attributes, also in lists, tuples, dictionaries and plain objects (configurations)."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

Key = str | int
DEEPEST = 5  # how many keys lead to a value at most


def children(value: Any) -> Mapping[Key, Any]:
    """Return the parts of a container by key, index or attribute; nothing for any other value."""
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if type(key) in (str, int)}
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return getattr(value, "__dict__", {}) if _is_plain(value) else {}


def _is_plain(value: Any) -> bool:
    """Return True for an object that is copied attribute by attribute, so that its content belongs to one model.

    This is not the case for functions, classes, modules, loggers and members of an enumeration.
    """
    kind: Any = type(value)
    if callable(value) or isinstance(value, types.ModuleType) or hasattr(kind, "__deepcopy__"):
        return False
    default = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    return default or kind is types.SimpleNamespace


def kept(module: nn.Module, seen: set[int] | None = None) -> Iterator[tuple[tuple[Key, ...], Any]]:
    """Yield the attributes of a module and their parts that have no parts themselves, with the keys that lead there.

    Parameters, buffers and submodules are not among them. An object that occurs twice is visited once.

    Args:
        module: it is not changed.
        seen: objects that were visited before, in other modules that share them; is added to.
    """
    apart = nn.Module().__dict__.keys()
    seen = set() if seen is None else seen

    def visit(keys: tuple[Key, ...], value: Any) -> Iterator[tuple[tuple[Key, ...], Any]]:
        parts = children(value) if len(keys) < DEEPEST else {}
        if not parts:
            yield keys, value
        elif isinstance(value, tuple) or id(value) not in seen:  # a tuple is changed by putting another in its place
            seen.add(id(value))
            for key, part in list(parts.items()):
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
    """Write a value at the place that keys lead to; tuples are rebuilt, other containers are changed in place."""
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
