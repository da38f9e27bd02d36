"""The nesting of arguments and outputs: tuples, lists and dictionaries, read from the JSON of ``torch.export``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS: Mapping[str, Callable[[Sequence[Any]], Any]] = {"builtins.tuple": tuple, "builtins.list": list}
DICTIONARIES = ("builtins.dict", "collections.OrderedDict")


@dataclass(frozen=True)
class Tree:
    """A nesting of values.

    Attributes:
        build: the function that builds the value from its children; None for a leaf.
        keys: the keys of a dictionary; None for a sequence.
        children: the nestings of the entries, in order.
    """

    build: Callable[[Sequence[Any]], Any] | None
    keys: tuple[Any, ...] | None
    children: tuple[Tree, ...]

    @classmethod
    def read(cls, text: str) -> Tree:
        """Read a nesting from its JSON.

        No class is imported: an entry of a class other than tuple, list and dictionary becomes a dictionary if its
        context is a list of keys, and otherwise a tuple.

        >>> Tree.read('[1, {"type": "builtins.list", "context": "null", "children_spec": []}]').built(iter(()))
        []
        """
        protocol, content = json.loads(text)
        if protocol != 1:
            raise ValueError(f"its nesting has version {protocol!r}; expected 1")
        return cls._of(content)

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Tree:
        kind, children = content["type"], tuple(cls._of(child) for child in content["children_spec"])
        if kind is None:
            return cls(None, None, ())
        if kind in KINDS:
            return cls(KINDS[kind], None, children)
        keys = json.loads(content["context"] or "null")
        if isinstance(keys, list) and len(keys) == len(children):
            return cls(lambda values: dict(zip(keys, values, strict=True)), tuple(keys), children)
        if kind in DICTIONARIES:
            raise ValueError(f"a dictionary of {len(children)} entries has the keys {keys!r}")
        return cls(tuple, None, children)

    def leaves(self, value: Any) -> Iterator[Any]:
        """Yield the leaves of ``value``.

        Raises:
            ValueError: the nesting of ``value`` differs.
        """
        if self.build is None:
            yield value
            return
        if self.keys is None:
            if not isinstance(value, list | tuple) or len(value) != len(self.children):
                raise ValueError(f"expected {len(self.children)} values; got {_described(value)}")
            entries: Sequence[Any] = value
        else:
            if not isinstance(value, Mapping) or set(value) != set(self.keys):
                raise ValueError(f"expected values named {', '.join(map(str, self.keys))}; got {_described(value)}")
            entries = [value[key] for key in self.keys]
        for child, entry in zip(self.children, entries, strict=True):
            yield from child.leaves(entry)

    def built(self, leaves: Iterator[Any]) -> Any:
        """Return the value that has these leaves."""
        if self.build is None:
            return next(leaves)
        return self.build([child.built(leaves) for child in self.children])


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"the names {', '.join(map(str, value)) or 'of nothing'}"
    return f"{len(value)}" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
