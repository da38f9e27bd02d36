"""Registries: objects by name, with each name once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Registry(Mapping[K, V]):
    """A mapping from names to objects of one kind, in the order of their registration.

    Args:
        kind: the word for an object in messages.

    Examples:
        >>> known = Registry("penalty")
        >>> known.enter("l1", dict)
        >>> known["l1"], len(known)
        (<class 'dict'>, 1)
        >>> known.enter("l1", list)
        Traceback (most recent call last):
        ValueError: penalty 'l1' is registered already, by builtins.dict
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[K, V] = {}

    def enter(self, name: K, thing: V) -> None:
        """Add an object under a name.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._known:
            raise ValueError(f"{self.kind} {name!r} is registered already, by {_source(self._known[name])}")
        self._known[name] = thing

    def __getitem__(self, name: K) -> V:
        return self._known[name]

    def __iter__(self) -> Iterator[K]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _source(thing: Any) -> str:
    named = thing if callable(thing) else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
