"""Dataclasses from JSON, with every entry checked against its annotation."""

from __future__ import annotations

import math
import types
from dataclasses import fields, is_dataclass
from reprlib import repr as briefly
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST = 2**63 - 1  # of whole numbers
_HINTS: dict[type, dict[str, Any]] = {}  # the types of the fields of each class
NEWER = {"newer": True}  # the metadata of a field that files of earlier versions do not have


def parse_record(cls: type[T], entries: Any, origin: str) -> T:
    """Build a dataclass from a dictionary: by the annotations, lists become tuples and dictionaries dataclasses.

    Raises:
        ValueError: an entry is missing or has the wrong type; the message names ``origin`` and the entry.

    >>> from torchlasso.data import Standardizer
    >>> parse_record(Standardizer, {"mean": [0.0], "std": [1]}, "config.json")
    Standardizer(mean=(0.0,), std=(1.0,))
    """
    if not isinstance(entries, dict):
        raise ValueError(f"{origin} is damaged: it has {briefly(entries)} in the place of an object")
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)  # reads every annotation from its text
    hints = _HINTS[cls]
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in entries:
            values[field.name] = _value(entries[field.name], hints[field.name], field.name, origin)
        # fields that are None or False by default, or are newer than some files, may be missing
        elif not (field.default is None or field.default is False or "newer" in field.metadata):
            raise ValueError(f"{origin} is damaged: {field.name!r} is missing")
    try:
        return cls(**values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{origin} is damaged: {error}") from error


def _value(value: Any, hint: Any, name: str, origin: str) -> Any:
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for arm in arms:
        if arm is type(None) and value is None:
            return None
        if is_dataclass(arm) and isinstance(arm, type) and isinstance(value, dict):
            return parse_record(arm, value, origin)
        if get_origin(arm) is tuple and isinstance(value, list):
            first, *rest = get_args(arm)
            kinds = [first] * len(value) if rest == [...] else [first, *rest]
            if len(kinds) != len(value):
                continue
            return tuple(_value(item, kind, name, origin) for item, kind in zip(value, kinds, strict=True))
        if get_origin(arm) is dict and isinstance(value, dict):
            return {key: _value(item, get_args(arm)[1], name, origin) for key, item in value.items()}
        if type(value) is int and not -LARGEST <= value <= LARGEST:
            break
        if arm is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if arm in (int, str, bool) and type(value) is arm:
            return value
    raise ValueError(f"{origin} is damaged: {name!r} is {briefly(value)}")
