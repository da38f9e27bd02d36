"""Registries: things that are known by a name, each name once."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeVar

K = TypeVar("K")


def enter(known: MutableMapping[K, Any], kind: str, name: K, thing: Any) -> None:
    """Add a thing to a registry under a name.

    Raises:
        ValueError: the name is taken.

    Examples:
        >>> known = {}
        >>> enter(known, "penalty", "l1", dict)
        >>> enter(known, "penalty", "l1", list)
        Traceback (most recent call last):
        ValueError: penalty 'l1' is registered already, by builtins.dict
    """
    if name in known:
        raise ValueError(f"{kind} {name!r} is registered already, by {_source(known[name])}")
    known[name] = thing


def _source(thing: Any) -> str:
    named = thing if callable(thing) else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
