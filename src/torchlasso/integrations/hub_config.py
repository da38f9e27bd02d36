"""The arguments of a model in a ``config.json``: they are checked before the model is made."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torchlasso._core.arguments import shown
from torchlasso._core.files import parse_json, read_text
from torchlasso._core.specs import unknown

CONFIG = "config.json"
BASIC: Mapping[Any, Any] = {int: int, float: (int, float), str: str}  # of JSON, apart from truth values
LISTS, OBJECTS = (list, tuple, Sequence), (dict, Mapping)
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def check_config(
    cls: type,
    parameters: Mapping[str, Parameter],
    file: Path | None,
    given: Collection[str],
    custom: tuple[type, ...],
) -> None:
    """Check the arguments of a model before it is made of them.

    Args:
        cls: the class of the model.
        parameters: its parameters by name.
        file: the configuration; None if there is none.
        given: the names of the arguments that are given in another way, which count instead of those in the file.
        custom: classes of arguments that the model encodes in its own way.

    Raises:
        ValueError: the file is not a JSON object; an argument has another type than the class says; or one is missing.

    Warns:
        UserWarning: the file has a key that is not an argument, and is ignored.
    """
    config = {} if file is None else parse_json(read_text(file), file, finite=False)
    if not isinstance(config, dict):
        raise ValueError(f"{file} is damaged: it must have values by name, and is {shown(config)}")
    hints = _hints(cls)
    taken = {name: each for name, each in parameters.items() if each.kind in NAMED}
    if "config" in taken:  # this argument gets all of it
        if file is not None and "config" not in given:
            _check_fields(file, hints.get("config"), config)
        return
    for name, value in config.items():
        if name in given or name not in taken:
            continue
        hint, default = hints.get(name, Any), taken[name].default
        if not (_fits(value, hint, custom) or _is_like(value, default, hint, custom)):
            raise ValueError(
                f"{file}: {name} must be {inspect.formatannotation(hint)} for {cls.__name__}; got {shown(value)}. "
                f"To replace it: from_pretrained(..., {name}=...)"
            )
        _check_fields(file, hint, value)
    needed = [name for name, each in taken.items() if each.default is Parameter.empty]
    if missing := [name for name in needed if name not in {*config, *given}]:
        where = f"{file} lacks" if file is not None else f"there is no {CONFIG} with"
        again = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(
            f"{where} {', '.join(missing)}, which {cls.__name__} needs: give from_pretrained(..., {again})"
        )
    if all(each.kind is not Parameter.VAR_KEYWORD for each in parameters.values()):
        for name in config:
            if name not in taken:
                warnings.warn(f"{file} is read without a part of it: {unknown('argument', name, taken)}", stacklevel=3)


def _check_fields(file: Path | None, hint: Any, value: Any) -> None:
    """Raise unless a value has all fields that a dataclass needs."""
    kind = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
    if kind is None or value is None:
        return
    needed = [f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"{file} lacks {', '.join(missing)}, which {inspect.formatannotation(kind)} needs")


def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except Exception:  # of any kind: annotations may name anything, and need not exist
        return {}


def _is_like(value: Any, default: Any, hint: Any, custom: tuple[type, ...]) -> bool:
    """Return whether a value has the type of a default that is not of the annotated type, such as None for an int."""
    usual = list(default) if isinstance(default, tuple) else default
    return type(value) is type(usual) and not _fits(usual, hint, custom)


def _fits(value: Any, hint: Any, custom: tuple[type, ...]) -> bool:
    """Return whether a value of JSON can be of a type; of types that JSON does not have, any value can."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _fits(value, inner[0], custom)
    if kind in (Union, types.UnionType):
        return any(_fits(value, each, custom) for each in inner)
    if kind is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if kind in (None, types.NoneType):
        return value is None
    if inspect.isclass(kind) and issubclass(kind, custom):
        return True
    if kind is bool or (isinstance(value, bool) and kind in BASIC):
        return kind is bool and isinstance(value, bool)
    if kind in BASIC:
        return isinstance(value, BASIC[kind])
    if kind in LISTS:
        return isinstance(value, list) and _all_fit(value, kind, inner, custom)
    if kind in OBJECTS or is_dataclass(kind):
        return isinstance(value, dict)
    return True


def _all_fit(values: list[Any], kind: Any, inner: tuple[Any, ...], custom: tuple[type, ...]) -> bool:
    """Return whether the items of a list fit those of a type of lists."""
    if not inner:
        return True
    if kind is tuple and Ellipsis not in inner:
        return len(values) == len(inner) and all(map(lambda v, hint: _fits(v, hint, custom), values, inner))
    return all(_fits(value, inner[0], custom) for value in values)
