"""Labels: their column, their checks, and their class indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.messages import listed, row
from torchlasso.data.records import Labels

LABEL_NAMES = ("label", "class", "target", "y")


@dataclass(frozen=True)
class ColumnSelection:
    """The columns of a table that are no features.

    Attributes:
        label: the label column.
        ignore: the columns to leave out.
        required: whether a label must exist.
        group: the column that names the group of each row, such as a person.
    """

    label: str | None = None
    ignore: tuple[str, ...] = ()
    required: bool = True
    group: str | None = None

    def find_label(self, names: Sequence[str], origin: str) -> str | None:
        """Return the label column among ``names``, or None if there is none and none is required.

        Raises:
            ValueError: the label column or a column to ignore does not exist.
        """
        duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
        if duplicates:
            raise ValueError(f"{origin}: more than one column {listed(duplicates)}; names must be unique")
        unknown = [name for name in self.ignore if name not in names]
        if unknown and self.required:
            raise ValueError(f"{origin}: no column {listed(unknown)} to ignore; there are {listed(names)}")
        if self.group is not None and self.group in (self.label, *self.ignore):
            raise ValueError(f"{origin}: the column {self.group!r} cannot be both the groups and the label or ignored")
        if self.label is not None and self.label in self.ignore:
            raise ValueError(f"{origin}: the column {self.label!r} cannot be both the label and ignored")
        if self.group is not None and self.group not in names:
            raise ValueError(f"{origin}: no column {self.group!r} for groups; there are {listed(names)}")
        wanted = LABEL_NAMES if self.label is None else (self.label,)
        found = [name for name in wanted if name in names and name not in (*self.ignore, self.group)]
        if not found and self.required:
            what = f"column {self.label!r}" if self.label else f"label column ({', '.join(LABEL_NAMES)})"
            raise ValueError(f"{origin}: no {what}; choose one with label=; there are {listed(names)}")
        return found[0] if found else None

    def refuse(self, origin: str) -> None:
        """Refuse a selection of columns, for data without named columns.

        Raises:
            ValueError: a label column or columns to ignore were given.
        """
        if self.required and (self.label is not None or self.ignore or self.group is not None):
            raise ValueError(f"{origin}: it has no named columns, so label=, ignore= and group= do not apply")


def raw_labels(y: Labels, origin: str) -> Labels:
    """Convert labels to int64 (n,), str (n,), or float64 (n,) or (n, outputs); booleans become 0 and 1.

    Raises:
        ValueError: the labels have another kind or shape, are negative, or are not finite.
    """
    kind = y.dtype.kind
    if kind == "O" and all(isinstance(value, str) for value in y.flat):
        y, kind = y.astype(np.str_), "U"
    if kind not in "biufU":
        raise ValueError(f"{origin}: labels must be whole numbers, decimal numbers or text, not {y.dtype}")
    if y.ndim != 1 and not (kind == "f" and y.ndim == 2 and y.shape[1] > 0):
        wanted = "(n,) or (n, outputs)" if kind == "f" else "(n,)"
        raise ValueError(f"{origin}: labels must have the shape {wanted}, not {y.shape}")
    if kind == "U":
        return y
    if kind == "f":
        _refuse_rows(~np.isfinite(y).reshape(len(y), -1).all(1), y, "must be finite numbers", origin)
        return y.astype(np.float64)
    if kind == "u":
        _refuse_rows(y > np.iinfo(np.int64).max, y, "must fit into 64 bits", origin)
    _refuse_rows(y < 0, y, "of classes must be 0 or more, or text", origin)
    return y.astype(np.int64)


def _refuse_rows(bad: Any, y: Labels, demand: str, origin: str) -> None:
    if bad.any():
        first, count = int(bad.argmax()), int(bad.sum())
        raise ValueError(f"{origin}: labels {demand}, but {row(first)} has {y[first]} ({count} such rows)")


def class_names(y: Labels) -> tuple[str, ...]:
    """Return the sorted distinct labels, as text.

    >>> class_names(np.array([10, 2, 2]))
    ('2', '10')
    """
    return tuple(str(value) for value in np.unique(y))


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
    values, first, inverse = np.unique(y, return_index=True, return_inverse=True)
    for at, value in sorted(zip(first.tolist(), values, strict=True), key=lambda pair: pair[0]):
        if str(value) not in position:
            label = f"the label {str(value)!r} in {row(at)}"
            raise ValueError(f"{label} is not among the classes {listed(classes)}")
    index = np.array([position[str(value)] for value in values], dtype=np.int64)
    return torch.from_numpy(index[inverse.reshape(-1)])
