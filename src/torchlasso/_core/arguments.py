"""Checks of arguments: a wrong call raises an error of one line before anything is done."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

T = TypeVar("T")
LONGEST = 80  # the most characters of a value in a message


def shown(value: Any) -> str:
    """Describe a value in an error message, in a few words.

    >>> shown("filters"), shown([1, 2]), shown(nn.Linear)
    ("'filters'", '[1, 2]', 'the class Linear (brackets are missing: Linear())')
    >>> shown(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    'a Sequential'
    """
    if isinstance(value, type):
        return f"the class {value.__name__} (brackets are missing: {value.__name__}())"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = "" if isinstance(value, nn.Module | Optimizer) else repr(value)
    plain = text and "\n" not in text and len(text) <= LONGEST and " object at 0x" not in text and "<" not in text
    if plain:
        return text
    article = "an" if type(value).__name__[0] in "AEIOUaeiou" else "a"
    return f"{article} {type(value).__name__}"


def check_kind(name: str, value: Any, kind: Any, expected: str) -> None:
    """Raise ``TypeError`` unless a value is of a class.

    >>> check_kind("report: model", [1], nn.Module, "a torch.nn.Module")
    Traceback (most recent call last):
    TypeError: report: model must be a torch.nn.Module; got [1]
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}; got {shown(value)}")


def check_model(name: str, value: Any) -> None:
    """Raise ``TypeError`` unless a value is a model."""
    check_kind(name, value, nn.Module, "a torch.nn.Module")


def check_inputs(name: str, value: Any) -> None:
    """Raise ``TypeError`` unless a value can be the inputs of a model, ``ValueError`` if all its tensors are empty.

    >>> check_inputs("report: example_inputs", Tensor(0, 3))
    Traceback (most recent call last):
    ValueError: report: example_inputs must have at least one row; got a tensor of the shape (0, 3)
    """
    expected = "a tensor, a tuple of arguments or a dict of keyword arguments"
    check_kind(name, value, Tensor | tuple | list | dict, expected)
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise ValueError(f"{name} must have at least one row; got a tensor of the shape {tuple(tensors[0].shape)}")


def check_sequence(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise ``TypeError`` unless a value is a sequence of instances of a class."""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | nn.Module | Optimizer)
    if not several or (isinstance(value, Collection) and not all(isinstance(item, kind) for item in value)):
        raise TypeError(f"{name} must be {expected}; got {shown(value)}")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and neither a boolean nor text.

    >>> is_number(0.5), is_number(True), is_number("0.5"), is_number(float("nan"))
    (True, False, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def only_given(name: str, options: Mapping[str, T | None]) -> tuple[str, T]:
    """Return the name and the value of the one option that was given; the others are None.

    Raises:
        ValueError: none or several were given.

    Examples:
        >>> only_given("TargetCount", {"features": 5, "units": None})
        ('features', 5)
    """
    given = [(option, value) for option, value in options.items() if value is not None]
    if len(given) != 1:
        found = ", ".join(option for option, _ in given) or "none"
        raise ValueError(f"{name}: give one of {', '.join(options)}; got {found}")
    return given[0]


def check_positive(name: str, value: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless a value is a finite number above 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number above 0; got {shown(value)}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}")


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise ``ValueError`` unless a value is a whole number from ``least`` to ``most``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {shown(value)}")
    if most is not None and int(value) > most:
        raise ValueError(f"{name} must be at most {most}; got {value!r:.40}")
