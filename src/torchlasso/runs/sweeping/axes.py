"""The axes of a sweep: options of a training with the values that are tried, from texts such as ``lr=1e-3,3e-3``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin

from torchlasso._core.specs import unknown
from torchlasso.runs.data_options import DataOptions
from torchlasso.runs.declared import SWEEP, options_of
from torchlasso.runs.options import Options

Value = bool | int | float | str | None
WITH_OPTIONS = ("model", "penalty", "over", "optimizer")  # their values are names with options, as in mcp:gamma=3
LOGARITHMIC = 10.0  # the ends of a range that differ by this factor, or more, are apart on a logarithmic scale
MOST = 10_000  # the most combinations of a grid


@dataclass(frozen=True)
class SweepAxis:
    """An option of a training, and the values that are tried.

    Attributes:
        name: the name of the option, or of an option of its value, as in ``penalty.gamma``.
        values: the values; empty for a range.
        ends: the ends of a range; None for values.
    """

    name: str
    values: tuple[Value, ...] = ()
    ends: tuple[float, float] | None = None

    @property
    def samples(self) -> tuple[Value, ...]:
        """The values, or the ends of the range."""
        return self.values if self.ends is None else tuple(map(self.of_kind, self.ends))

    @property
    def is_whole(self) -> bool:
        """True for a range of whole numbers."""
        return self.ends is not None and all(isinstance(end, int) for end in self.ends)

    @property
    def is_logarithmic(self) -> bool:
        """True for a range on a logarithmic scale."""
        return self.ends is not None and self.ends[0] > 0 and self.ends[1] / self.ends[0] >= LOGARITHMIC

    def of_kind(self, number: float) -> Value:
        """Return a number of the range as the option takes it."""
        return int(number) if self.is_whole else float(number)


def parse_axis(text: str) -> SweepAxis:
    """Read an axis from a text: an option and its values between commas, or a range with two dots.

    Values that have commas themselves are separated by ``|``. ``none`` stands for an option that is not given.

    Raises:
        ValueError: there is no such option, it cannot be varied, or a value is not of its kind.

    Examples:
        >>> parse_axis("lr=1e-3,3e-3")
        SweepAxis(name='lr', values=(0.001, 0.003), ends=None)
        >>> parse_axis("sparsity=0.8..0.99").ends
        (0.8, 0.99)
        >>> parse_axis("optimizer=adam|sgd:momentum=0.9,nesterov=true").values
        ('adam', 'sgd:momentum=0.9,nesterov=true')
    """
    name, equals, tail = text.partition("=")
    name, tail = name.strip().replace("-", "_"), tail.strip()
    if not (name and equals and tail):
        raise ValueError(f"--vary {text!r} is not of the form option=value,value, as in lr=1e-3,3e-3")
    kinds = _kinds_of(name, text)
    low, dots, high = tail.partition("..")
    if dots:
        return SweepAxis(name, ends=_range(text, low.strip(), high.strip(), kinds))
    items = [item.strip() for item in tail.split("|" if "|" in tail else ",")]
    values = tuple(_value(text, item, kinds) for item in items)
    if len(set(values)) < len(values):
        raise ValueError(f"--vary {text!r} has a value twice")
    return SweepAxis(name, values)


def _kinds_of(name: str, text: str) -> tuple[Any, ...]:
    """Return the types that an option takes; for an option of a value any text."""
    option, _, inner = name.partition(".")
    known = {each: kind for each, kind, _ in options_of(Options, SWEEP)}
    of_data = {field.name for field in fields(DataOptions)} - {"sparsity"}
    if option not in known:
        raise unknown("option", option.replace("_", "-"), [each.replace("_", "-") for each in known])
    if inner and option not in WITH_OPTIONS:
        raise ValueError(f"--vary {text!r}: the values of {option} have no options; {', '.join(WITH_OPTIONS)} have")
    if option in of_data or option in ("device", "log"):
        raise ValueError(f"--vary {text!r}: all trials have the same --{option.replace('_', '-')}")
    if inner:
        return (int, float, str)
    kind = known[option]
    if get_origin(kind) is tuple:
        raise ValueError(f"--vary {text!r}: --{option.replace('_', '-')} takes a list and cannot be varied")
    return get_args(kind) or (kind,)


def _value(text: str, item: str, kinds: Sequence[Any]) -> Value:
    if item == "none" and type(None) in kinds:
        return None
    if bool in kinds and item in ("true", "false"):
        return item == "true"
    for kind in (each for each in (int, float, str) if each in kinds):
        try:
            return kind(item)
        except ValueError:
            continue
    wanted = "true or false" if bool in kinds else "a whole number" if int in kinds else "a number"
    raise ValueError(f"--vary {text!r}: {item!r} is not {wanted}")


def _range(text: str, low: str, high: str, kinds: Sequence[Any]) -> tuple[float, float]:
    if not {int, float} & {*kinds}:
        raise ValueError(f"--vary {text!r}: a range is of numbers; give the values with commas between")
    numbers = [kind for kind in kinds if kind in (int, float)]
    ends = (_value(text, low, numbers), _value(text, high, numbers))
    first, last = (float(end or 0) for end in ends)
    if not (math.isfinite(first) and math.isfinite(last) and first < last):
        raise ValueError(f"--vary {text!r}: a range goes from a number to a larger one, as in 1e-4..1e-2")
    return ends if all(type(end) is int for end in ends) else (first, last)  # type: ignore[return-value]


def combinations(axes: Sequence[SweepAxis]) -> Iterator[dict[str, Value]]:
    """Yield all combinations of the values of axes; of a range, its ends."""
    for values in itertools.product(*(axis.samples for axis in axes)):
        yield dict(zip((axis.name for axis in axes), values, strict=True))


def with_values(given: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the options of a training with the values of a trial.

    >>> with_values({"lr": None, "model": "mlp:depth=1"}, {"lr": 0.1, "model.width": 50})
    {'lr': 0.1, 'model': 'mlp:depth=1,width=50'}
    """
    plain = {name: value for name, value in values.items() if "." not in name}
    found = {**given, **plain}
    for name, value in values.items():
        option, _, inner = name.partition(".")
        if inner:
            spec = found[option]
            if spec is None:
                raise ValueError(f"{name} needs --{option}")
            found[option] = f"{spec}{',' if ':' in spec else ':'}{inner}={value}"
    return found
