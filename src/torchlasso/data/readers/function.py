"""Data returned by a function of the user."""

from __future__ import annotations

import inspect
from typing import Any

from torchlasso._core.functions import import_function, is_function_name
from torchlasso.data.arrays import array_from, array_part
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part
from torchlasso.data.registry import Portion, Reader, Source, register
from torchlasso.data.splits import split_test

PARTS = ("validation", "test")


@register
class Function(Reader):
    """``package.module:function``, which returns (x, y), or such pairs of training, validation and test rows."""

    form = "package.module:function"
    rank = 2

    def accepts(self, spec: str) -> bool:
        return is_function_name(spec)

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        columns.refuse(spec)
        function = import_function(spec)
        try:
            inspect.signature(function).bind()
        except TypeError as error:
            raise ValueError(f"{spec}: the function must need no arguments ({error})") from error
        result = function()
        if isinstance(result, tuple) and len(result) in (2, 3) and all(_is_pair(part) for part in result):
            named = dict(zip(("", *PARTS[3 - len(result) :]), result, strict=True))
            parts = {
                name: _part(pair, f"{spec}, {name} part" if name else spec, columns.task)
                for name, pair in named.items()
            }
            train, test, validation = parts[""], parts["test"], parts.get("validation")
        elif _is_pair(result):
            (train, test), validation = split_test(_part(result, spec, columns.task)), None
        else:
            wanted = "(x, y), ((x, y), (x_test, y_test)) or ((x, y), (x_validation, y_validation), (x_test, y_test))"
            raise ValueError(f"{spec}: must return {wanted}, not {_shape(result)}")
        return Source(
            spec,
            Portion(spec, lambda: train),
            Portion(f"{spec}, test part", lambda: test),
            None if validation is None else Portion(f"{spec}, validation part", lambda: validation),
        )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _shape(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def _part(pair: tuple[Any, Any], origin: str, task: str | None) -> Part:
    return array_part(array_from(pair[0], "x", origin), array_from(pair[1], "y", origin), origin, task)
