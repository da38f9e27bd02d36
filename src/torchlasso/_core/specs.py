"""Things named by text: ``mcp:gamma=3``, ``package.module:function``, and what to say of an unknown name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Option = bool | int | float | str | tuple[float, ...]


def parse_spec(text: str) -> tuple[str, dict[str, Option]]:
    """Split ``name:key=value,key=value`` into its name and its options.

    Values that look like whole numbers, numbers or true/false become such, and numbers with slashes between them a
    tuple.

    >>> parse_spec("mcp:gamma=3")
    ('mcp', {'gamma': 3})
    >>> parse_spec("adam:betas=0.95/0.999")
    ('adam', {'betas': (0.95, 0.999)})
    """
    name, _, tail = text.partition(":")
    options: dict[str, Option] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise ValueError(f"{text!r}: {item!r} is not of the form key=value, as in 'mcp:gamma=3'")
        options[key] = _value(value)
    return name.strip(), options


def _value(text: str) -> Option:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    kinds: tuple[Callable[[str], Option], ...] = (int, float, _numbers)
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))


def is_function_name(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:function``.

    >>> is_function_name("mypackage.nets:build"), is_function_name("mcp:gamma=3")
    (True, False)
    """
    module, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_function(text: str) -> Callable[..., Any]:
    """Import what ``package.module:function`` names; the current folder counts as importable."""
    module_name, _, function_name = text.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise ValueError(f"{text!r}: no module {error.name!r} can be imported from here") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"{text!r}: the module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is known: a new one is one file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown name: says what is known, and the nearest of it.

    >>> str(unknown("penalty", "mpc", ["l1", "mcp"]))
    "unknown penalty 'mpc'; did you mean 'mcp'? There are: l1, mcp"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {name!r}{hint} There are: {', '.join(known)}")
