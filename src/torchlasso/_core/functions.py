"""Functions named by text, ``package.module:function``: their import, and the user's consent to it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HUB = "hf"


def is_function_name(text: str) -> bool:
    """Return True for text of the form ``package.module:function``.

    Names on the Hugging Face Hub, ``hf:name``, are none.

    >>> is_function_name("mypackage.nets:build"), is_function_name("mcp:gamma=3"), is_function_name("hf:mnist")
    (True, False, False)
    """
    module, colon, function = text.partition(":")
    return (
        bool(colon)
        and module != HUB
        and function.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
    )


def import_function(text: str) -> Callable[..., Any]:
    """Import the function that ``package.module:function`` names; the current folder counts as importable.

    Check a name from a file with :func:`need_consent` first.
    """
    module_name, _, function_name = text.partition(":")
    try:
        with _from_here():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        name = module_name.removesuffix(".py")
        hint = f"; give the module, not its file: {name}:{function_name}" if name != module_name else ""
        raise ValueError(f"{text!r}: no module {error.name!r} can be imported from here{hint}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"{text!r}: the module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def need_consent(origin: Path, names: Iterable[str | None], allowed: Collection[str]) -> None:
    """Refuse a file that names functions which the user has not allowed, or which lie in the same run folder.

    Args:
        origin: the file. If it is in the folder of a run, no code in that folder is imported.
        names: its entries that may name functions.
        allowed: the functions that the user allowed.

    Raises:
        ValueError: a function is not allowed, and the message says how to allow it; or it is in the folder of the run.

    >>> need_consent(Path("run/config.json"), ["mlp", "sent.evil:build"], [])
    Traceback (most recent call last):
    ValueError: run/config.json names code, which is run only if you allow it: --allow-code sent.evil:build
    """
    functions = [name for name in names if name is not None and is_function_name(name)]
    if refused := [name for name in functions if name not in allowed]:
        how = " ".join(f"--allow-code {name}" for name in refused)
        raise ValueError(f"{origin} names code, which is run only if you allow it: {how}")
    runs = [folder for folder in origin.resolve().parents[:2] if (folder / "config.json").is_file()]
    for name in functions:
        if any(folder in place.parents for place in _places_of(name) for folder in runs):
            raise ValueError(f"{origin} names {name}, which lies in the run's folder; no code is imported from there")


def _places_of(name: str) -> list[Path]:
    """Return the paths of a function's package or module, without importing anything."""
    top = name.partition(":")[0].partition(".")[0]
    if top in sys.modules:
        module = sys.modules[top]
        found = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    else:
        with _from_here():
            spec = find_spec(top)
        found = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return [Path(place).resolve() for place in found if place]


@contextmanager
def _from_here() -> Iterator[None]:
    """Find modules in the current folder first; afterwards keep it last on the path, so that it shadows nothing."""
    here = str(Path.cwd())
    known = here in sys.path
    if not known:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if not known:
            sys.path.remove(here)
            sys.path.append(here)
