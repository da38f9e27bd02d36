"""Specifications by text, such as ``mcp:gamma=3``, and the error for an unknown name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable

OptionValue = bool | int | float | str | tuple[float, ...]


def parse_spec(text: str) -> tuple[str, dict[str, OptionValue]]:
    """Split ``name:key=value,key=value`` into its name and its options.

    Whole numbers, decimal numbers and true/false are converted, and numbers with slashes between them become a tuple.

    >>> parse_spec("mcp:gamma=3")
    ('mcp', {'gamma': 3})
    >>> parse_spec("adam:betas=0.95/0.999")
    ('adam', {'betas': (0.95, 0.999)})
    """
    name, _, tail = text.partition(":")
    options: dict[str, OptionValue] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise ValueError(f"{text!r}: {item!r} is not of the form key=value, as in 'mcp:gamma=3'")
        options[key] = _value(value)
    return name.strip(), options


def _value(text: str) -> OptionValue:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    kinds: tuple[Callable[[str], OptionValue], ...] = (int, float, _numbers)
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that they register their objects."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown name: it lists the known names and suggests the nearest one.

    >>> str(unknown("penalty", "mpc", ["l1", "mcp"]))
    "unknown penalty 'mpc'; did you mean 'mcp'? There are: l1, mcp"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {name!r}{hint} There are: {', '.join(known)}")
