"""Labels: their column, their checks, and their class indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.distinct import distinct, distinct_values
from torchlasso.data.image_decoding import ImageOptions
from torchlasso.data.messages import listed, row
from torchlasso.data.records import Labels
from torchlasso.data.text_columns import are_values
from torchlasso.data.text_options import TextOptions

LABEL_NAMES = ("label", "class", "target", "y")
CLASSIFICATION, REGRESSION = TASKS = ("classification", "regression")
MANY = 20  # different whole numbers as labels; more need about as many rows squared to be taken as classes


@dataclass(frozen=True)
class ColumnSelection:
    """The columns of a table that are no features, and how others are read.

    Attributes:
        label: the label column, or several columns of numbers, separated by commas.
        ignore: the columns to leave out.
        required: whether a label must exist.
        group: the column that names the group of each row, such as a person; with ``COLUMN:PATTERN``, the part of its
            text that a regular expression matches, or its first parenthesis.
        time: the column of the time of each row, numbers or dates.
        weight: the column of the weight of each row in training; other rows need none.
        of_a_part: whether the table is one of several parts, some of which may not have the columns to leave out.
        categories: columns of categories that are written as numbers, such as postcodes.
        task: ``"classification"`` or ``"regression"``, for labels that are whole numbers; None to judge by them.
        images: how images are read.
        survival: the columns of the times and of the events, in the place of labels.
        text: the columns of texts, which are joined; () to find them.
        texts: how texts become numbers.
    """

    label: str | None = None
    ignore: tuple[str, ...] = ()
    required: bool = True
    group: str | None = None
    time: str | None = None
    categories: tuple[str, ...] = ()
    task: str | None = None
    images: ImageOptions = ImageOptions()
    survival: tuple[str, str] | None = None
    text: tuple[str, ...] = ()
    texts: TextOptions = TextOptions()
    weight: str | None = None
    of_a_part: bool = False

    def find_labels(self, names: Sequence[str], origin: str) -> tuple[str, ...]:
        """Return the label columns among ``names``; none if there are none and none are required.

        Raises:
            ValueError: a column that was named does not exist, or has two roles.
        """
        duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
        header = _header(names)
        if duplicates:
            raise ValueError(f"{origin}: more than one column {listed(duplicates)}; names must be unique{header}")
        here = set(names)
        unknown = [name for name in self.ignore if name not in here]
        if unknown and self.required and not self.of_a_part:
            raise ValueError(f"{origin}: no column {listed(unknown)} to ignore; there are {listed(names)}")
        group, _ = self.group_column(names)
        for name, what in (
            (group, "groups"),
            (self.time, "the time"),
            *((name, "categories") for name in self.categories),
            *((name, "the text") for name in self.text),
        ):
            if name is not None and name not in here and (self.required or what in ("categories", "the text")):
                raise ValueError(f"{origin}: no column {name!r} for {what}; there are {listed(names)}")
        if self.survival is not None:
            absent = [name for name in self.survival if name not in here]
            if absent and (self.required or len(absent) == 1):
                raise ValueError(f"{origin}: no column {listed(absent)} of times and events; there are {listed(names)}")
            targets = () if absent else self.survival
            self._check_roles(targets, (), group, "a time or event", origin)
            return targets
        given = () if self.label is None else (self.label,) if self.label in here else tuple(self.label.split(","))
        taken = {*self.ignore, *(name for name in (group, self.time) if name is not None)}
        found = () if given else tuple(name for name in LABEL_NAMES if name in here and name not in taken)[:1]
        self._check_roles(given, found, group, "the label", origin)
        if self.time is not None and self.time in (*given, *self.ignore):
            raise ValueError(f"{origin}: the column {self.time!r} cannot be both the time and the label or ignored")
        if given and all(name in here for name in given):
            return given
        if not found and self.required:
            absent = [name for name in given if name not in here]
            what = f"column {listed(absent)}" if absent else f"label column ({', '.join(LABEL_NAMES)})"
            raise ValueError(f"{origin}: no {what}; choose one with label=; there are {listed(names)}{header}")
        return found

    def _check_roles(
        self, given: tuple[str, ...], found: tuple[str, ...], group: str | None, what: str, origin: str
    ) -> None:
        """Raise ``ValueError`` for a column that would be two things: the targets, and what else is no input."""
        for name in given:
            if name in self.ignore:
                raise ValueError(f"{origin}: the column {name!r} cannot be both {what} and ignored")
        if group is not None and group in (*given, *self.ignore):
            raise ValueError(f"{origin}: the column {group!r} cannot be both the groups and {what} or ignored")
        if self.weight is not None and self.weight in (*given, *found, *self.ignore, group, self.time):
            raise ValueError(f"{origin}: the column {self.weight!r} cannot be both the weights and something else")

    def group_column(self, names: Sequence[str]) -> tuple[str | None, str | None]:
        """Return the column of the groups, and the pattern of the part of its text that is one."""
        if self.group is None or self.group in names:
            return self.group, None
        name, colon, pattern = self.group.partition(":")
        return (name, pattern) if colon else (self.group, None)

    def refuse(self, origin: str) -> None:
        """Refuse a selection of columns, for data without named columns.

        Raises:
            ValueError: columns were named.
        """
        named = (self.label, self.ignore, self.group, self.time, self.categories, self.survival, self.text, self.weight)
        if self.required and any(named):
            options = "label=, ignore=, group=, time=, categories=, text= and weight="
            raise ValueError(f"{origin}: it has no named columns, so {options} do not apply")


def _header(names: Sequence[str]) -> str:
    """Return the remedy where names of columns are values of a row."""
    return "; the first line looks like a row: put the names of the columns above it" if are_values(names) else ""


def raw_labels(y: Labels, origin: str, task: str | None = None) -> Labels:
    """Convert labels to int64 (n,), str (n,), or float64 (n,) or (n, outputs); booleans become 0 and 1.

    Args:
        y: whole numbers or text for classes, decimal numbers for regression, unless ``task`` says otherwise.
        origin: the name of the data in messages.
        task: ``"classification"``, ``"regression"`` or None.

    Raises:
        ValueError: the labels have another kind or shape, are not finite, or do not say whether they are classes.
    """
    kind = y.dtype.kind
    if kind == "O" and all(isinstance(value, str) for value in y.flat):
        y, kind = y.astype(np.str_), "U"
    if kind not in "biufU":
        raise ValueError(f"{origin}: labels must be whole numbers, decimal numbers or text, not {y.dtype}")
    if task == REGRESSION:
        if kind == "U":
            first = next((i for i, text in enumerate(y.flat) if not _is_number(str(text))), 0)
            raise ValueError(
                f"{origin}: labels for regression must be numbers; {row(first)} has {str(y.flat[first])!r}"
            )
        y, kind = y.astype(np.float64), "f"
    if y.ndim != 1 and not (kind == "f" and y.ndim == 2 and y.shape[1] > 0):
        wanted = "(n,) or (n, outputs)" if kind == "f" else "(n,)"
        raise ValueError(f"{origin}: labels must have the shape {wanted}, not {y.shape}")
    if kind == "U":
        return y
    if kind == "f":
        _refuse_rows(~np.isfinite(y).reshape(len(y), -1).all(1), y, "must be finite numbers", origin)
        if task == CLASSIFICATION:
            _refuse_rows(y != np.rint(y), y, "of classes must be whole numbers or text", origin)
            return y.astype(np.int64)
        return y.astype(np.float64)
    if kind == "u":
        _refuse_rows(y > np.iinfo(np.int64).max, y, "must fit into 64 bits", origin)
    if task is None:
        _refuse_rows(y < 0, y, "of classes must be 0 or more, or text, unless task= is given", origin)
        _refuse_many_values(y, origin)
    return y.astype(np.int64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse_many_values(y: Labels, origin: str) -> None:
    """Refuse whole numbers of which there are many for the rows: they may be classes or measurements."""
    if y.dtype.kind == "b" or len(y) < MANY:
        return
    values = distinct_values(y)
    if len(values) > max(MANY, len(y) ** 0.5) and values[-1] - values[0] >= len(values):
        raise ValueError(
            f"{origin}: labels have {len(values)} different whole numbers in {len(y)} rows, from {values[0]} to "
            f"{values[-1]}; say whether they are classes, by task='classification', or numbers, by task='regression'"
        )


def _refuse_rows(bad: Any, y: Labels, demand: str, origin: str) -> None:
    if bad.any():
        first, count = int(bad.argmax()), int(bad.sum())
        raise ValueError(f"{origin}: labels {demand}, but {row(first)} has {y[first]} ({count} such rows)")


def class_names(y: Labels) -> tuple[str, ...]:
    """Return the sorted distinct labels, as text.

    >>> class_names(np.array([10, 2, 2]))
    ('2', '10')
    """
    return tuple(str(value) for value in distinct_values(y))


def class_indices(y: Labels, classes: Sequence[str]) -> Tensor:
    """Convert raw labels to indices into the class names.

    Args:
        y: labels as a reader returned them, (n,).
        classes: the class names in the order of their indices.

    Returns:
        int64, (n,).

    Raises:
        ValueError: a label is not among the classes, or ``y`` is not of shape (n,).

    >>> class_indices(np.array(["dog", "cat"]), ["cat", "dog"])
    tensor([1, 0])
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"class labels must have the shape (n,), not {y.shape}")
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    position = {name: index for index, name in enumerate(classes)}
    values, places = distinct(y)
    unknown = [place for place, value in enumerate(values) if str(value) not in position]
    if unknown:
        first = int(np.isin(places, unknown).argmax())
        label = f"the label {str(y[first])!r} in {row(first)}"
        raise ValueError(f"{label} is not among the classes {listed(classes)}")
    index = np.array([position[str(value)] for value in values], dtype=np.int64)
    return torch.from_numpy(index[places])
