"""The columns of a table that are no inputs: labels, groups, times and weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from torchlasso.data.arrow_types import holds_numbers, is_date, plain_column, trimmed
from torchlasso.data.distinct import distinct_values
from torchlasso.data.frame import TableColumns
from torchlasso.data.labels import CLASSIFICATION, MANY, REGRESSION, ColumnSelection, raw_labels
from torchlasso.data.messages import listed, row
from torchlasso.data.records import Labels, Part
from torchlasso.data.stored.rows import StoredRows
from torchlasso.data.text_columns import typed
from torchlasso.data.texts import TextRows

# the names that pandas and R give to the index of a data frame
INDEX = re.compile(r"^$|^Unnamed: 0(\.[0-9]+)?$|^__index_level_[0-9]+__$")
DIGITS = 10  # different whole numbers as labels; more may be amounts


@dataclass(frozen=True)
class Roles:
    """Labels, groups, times and weights of rows, beside their inputs.

    Attributes:
        y, groups, times, weights: as those of a :class:`~torchlasso.data.records.Part`.
        inputs: the names of the other columns.
        absent: the columns to leave out that are not there.
        notes: what a person should know, a sentence each.
    """

    y: Labels | None
    groups: Labels | None = None
    times: Labels | None = None
    weights: Labels | None = None
    inputs: list[str] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def part_of(
    x: Tensor | TableColumns | StoredRows | TextRows,
    roles: Roles,
    features: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Part:
    """Make a part of inputs and of the other columns."""
    return Part(
        x, roles.y, features, (), roles.groups, roles.times, (*roles.notes, *notes), roles.weights, roles.absent
    )


def roles_of(
    pa: Any, select: Callable[[list[str]], Any], names: Sequence[str], columns: ColumnSelection, origin: str
) -> Roles:
    """Read the columns that are no inputs.

    Args:
        pa: the module ``pyarrow``.
        select: a function from names of columns to a ``pyarrow.Table`` with them.
        names: of all columns.
        columns: those that are no inputs.
        origin: the name of the data in messages.

    Raises:
        ValueError: a column does not exist or cannot be used.
    """
    labels = columns.find_labels(names, origin)
    y = _labels(pa, select(list(labels)), labels, columns, origin) if labels else None
    group, pattern = columns.group_column(names)
    groups, times, weights = None, None, None
    if group is not None and group in names:
        groups = _groups(pa, select([group]).column(0), group, pattern, origin)
    if columns.time is not None and columns.time in names:
        times = _times(pa, select([columns.time]).column(0), columns, origin)
    if columns.weight is not None and columns.weight in names:
        weights = _weights(pa, select([columns.weight]).column(0), columns.weight, origin)
    others = {*labels, group, columns.time, columns.weight, *columns.ignore}
    here = {*names}
    absent = tuple(name for name in columns.ignore if name not in here)
    inputs = [name for name in names if name not in others]
    indices = _indices(pa, select, [name for name in inputs if name not in (*columns.categories, *columns.text)])
    inputs = [name for name in inputs if name not in indices]
    notes = (*map(_note_of_index, indices), *_notes_of_labels(y, labels, columns))
    return Roles(y, groups, times, weights, inputs, absent, notes)


def _indices(pa: Any, select: Callable[[list[str]], Any], names: list[str]) -> list[str]:
    """Return the columns that are the index of a data frame: in sorted rows, it would give the label away."""
    found = []
    for name in filter(INDEX.search, names):
        column = plain_column(pa, select([name]).column(0))
        if pa.types.is_string(column.type):
            [column] = typed(pa, [column])
        if pa.types.is_integer(column.type) and not column.null_count:
            found.append(name)
    return found


def _note_of_index(name: str) -> str:
    which, remedy = (f"The column {name!r}", "rename") if name else ("The column without a name", "name")
    held = "holds whole numbers, as the index of a data frame does, and is not read"
    return f"{which} {held}; {remedy} it if it is an input."


def _notes_of_labels(y: Labels | None, names: tuple[str, ...], columns: ColumnSelection) -> list[str]:
    """Say how whole numbers are learned where it could be otherwise.

    Many of them may be amounts, and pandas writes classes as decimal numbers beside gaps.
    """
    if y is None or y.ndim != 1 or y.dtype.kind not in "if" or columns.task is not None or not columns.required:
        return []
    values = distinct_values(y)
    if y.dtype.kind == "i":
        learned = f"are learned as {len(values)} classes, without an order; to predict them as numbers"
        which = f"The whole numbers in column {names[0]!r} {learned}, give task='regression'."
        return [which] if len(values) > DIGITS else []
    if len(values) > MANY or 2 * len(values) > len(y) or (values != np.rint(values)).any():
        return []
    which = f"The {len(values)} different labels in column {names[0]!r} are whole, but written as decimals"
    return [f"{which}, so they are numbers to predict; if they are classes, give task='classification'."]


def _labels(pa: Any, table: Any, names: tuple[str, ...], columns: ColumnSelection, origin: str) -> Labels | None:
    if columns.survival is not None:
        return _times_and_events(pa, table, names, columns, origin)
    found = [_label(pa, table.column(name), name, columns, origin) for name in names]
    if len(found) == 1:
        return found[0]
    numbers = []
    for name, y in zip(names, found, strict=True):
        if y is None:
            return None
        if y.dtype.kind == "U" or columns.task == CLASSIFICATION:
            raise ValueError(f"{origin}: several labels must be numbers, for regression; column {name!r} is not")
        numbers.append(y.astype(np.float64))
    return np.stack(numbers, axis=1)


def _times_and_events(
    pa: Any, table: Any, names: tuple[str, ...], columns: ColumnSelection, origin: str
) -> Labels | None:
    """Return the time of each row, and 1 for an event or 0, (n, 2)."""
    task = replace(columns, task=REGRESSION)
    found = [_label(pa, table.column(name), name, task, origin) for name in names]
    if any(y is None for y in found):
        return None
    both = np.stack([y for y in found if y is not None], axis=1).astype(np.float64)
    if (bad := (both[:, 1] != 0) & (both[:, 1] != 1)).any():
        first = int(bad.argmax())
        raise ValueError(f"{origin}: column {names[1]!r} has {both[first, 1]:g} in {row(first)}; an event is 1, else 0")
    return both


def _label(pa: Any, column: Any, name: str, columns: ColumnSelection, origin: str) -> Labels | None:
    column = plain_column(pa, column)
    if pa.types.is_string(column.type):
        [column] = typed(pa, [column], missing=("",))
    if column.null_count:
        if column.null_count == len(column) and not columns.required:
            return None
        where = f"column {name!r}, {row(column.is_null().to_numpy().argmax())}"
        raise ValueError(f"{origin}: no label in {where} ({column.null_count} such rows)")
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values = np.asarray(column.to_numpy())
    several = (columns.label or "") != name and columns.label is not None
    task = REGRESSION if several and columns.task is None and values.dtype.kind in "iuf" else columns.task
    text = pa.types.is_string(column.type)
    return raw_labels(values.astype(np.str_) if text else values, f"{origin}, column {name!r}", task)


def _groups(pa: Any, column: Any, name: str, pattern: str | None, origin: str) -> Labels:
    """Return the group of each row, as text."""
    column = trimmed(pa, plain_column(pa, column))
    if column.null_count:
        where = row(column.is_null().to_numpy().argmax())
        raise ValueError(f"{origin}: no group in column {name!r}, {where} ({column.null_count} such rows)")
    texts = column.to_pylist()
    if pattern is None:
        return np.array(texts)
    try:
        found = [re.search(pattern, text) for text in texts]
    except re.error as error:
        raise ValueError(f"{origin}: {pattern!r} is not a regular expression ({error})") from error
    for index, (text, match) in enumerate(zip(texts, found, strict=True)):
        if match is None:
            raise ValueError(f"{origin}: column {name!r} has {text!r} in {row(index)}, without a match of {pattern!r}")
    return np.array([match[match.re.groups > 0] for match in found if match])


def _times(pa: Any, column: Any, columns: ColumnSelection, origin: str) -> Labels:
    """Return the time of each row, as a number."""
    column = plain_column(pa, column)
    if pa.types.is_string(column.type):
        [column] = typed(pa, [column])
    if column.null_count:
        where = row(column.is_null().to_numpy().argmax())
        raise ValueError(f"{origin}: no time in column {columns.time!r}, {where} ({column.null_count} such rows)")
    if is_date(pa, column.type):
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    if not holds_numbers(pa, column.type):
        raise ValueError(f"{origin}: column {columns.time!r} holds neither dates, as in 2024-01-31, nor numbers")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def required_weights(part: Part, column: str | None, origin: str) -> None:
    """Raise ``ValueError`` if there are no weights in the rows of a table in which a column has them."""
    if column is not None and part.weights is None:
        there = f"; there are {listed(part.features)}" if part.features else ""
        raise ValueError(f"{origin}: no column {column!r} for the weights{there}")


def _weights(pa: Any, column: Any, name: str, origin: str) -> Labels:
    """Return the weight of each row."""
    column = plain_column(pa, column)
    if pa.types.is_string(column.type):
        [column] = typed(pa, [column])
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not holds_numbers(pa, column.type):
        raise ValueError(f"{origin}: the column {name!r} does not hold numbers, which weights are")
    values = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy())
    if (bad := ~(np.isfinite(values) & (values >= 0))).any():
        first = int(bad.argmax())
        found = "no weight" if np.isnan(values[first]) else f"{values[first]:g}"
        raise ValueError(
            f"{origin}: column {name!r} has {found} in {row(first)} ({bad.sum()} such rows); a weight is a finite "
            "number, at least 0"
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(values.sum()):
            raise ValueError(
                f"{origin}: the weights in column {name!r} are too large, up to {values.max():g}, to add up"
            )
    return values
