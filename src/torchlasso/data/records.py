"""Results of reading: a part (rows as they were read) and a data set (ready to train on)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.frame import Frame, TableColumns, join_frames, refuse_other_columns
from torchlasso.data.stored.rows import StoredRows
from torchlasso.data.texts import TextRows, join_texts
from torchlasso.data.tokenizing import TextEncoding

Labels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Part:
    """The rows of one file or of one split, with labels as they were read.

    Args:
        x: images (n, channels, height, width), float32 in [0, 1] or bytes; or a table (n, features), float32, or with
            categories or gaps a :class:`~torchlasso.data.frame.Frame`; or rows or columns on a disk; or
            :class:`~torchlasso.data.texts.TextRows`.
        y: raw labels, int64 or str (n,), or float64 (n,) or (n, outputs); None if there are none.
        features: the column names of a table, () for images and for arrays without names.
        names: names of the rows, such as the files of images; () if they have no names.
        groups: the group of each row, (n,); None if there are none.
        times: the time of each row, (n,); None if there are none.
        weights: the weight of each row in training, float64 (n,); None if there are none.
        notes: what a person should know about the reading, a sentence each.
        absent: columns to leave out that a table does not have.

    >>> Part(torch.zeros(2, 3), np.array(["cat", "dog"]), ("a", "b", "c")).x.shape
    torch.Size([2, 3])
    """

    x: Tensor | TableColumns | StoredRows | TextRows
    y: Labels | None
    features: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    groups: Labels | None = None
    times: Labels | None = None
    notes: tuple[str, ...] = ()
    weights: Labels | None = None
    absent: tuple[str, ...] = ()

    def rows(self, index: Tensor) -> Part:
        """Select the rows of ``index``."""
        places = index.numpy()
        names = tuple(self.names[i] for i in places.tolist()) if self.names else ()
        held = (self.y, self.groups, self.times, self.weights)
        y, groups, times, weights = (None if values is None else values[places] for values in held)
        x = self.x[index] if isinstance(self.x, Tensor) else self.x.rows(places)
        return Part(x, y, self.features, names, groups, times, self.notes, weights, self.absent)

    @property
    def is_table(self) -> bool:
        """True for rows with columns of numbers or categories, false for images and texts."""
        if isinstance(self.x, TextRows):
            return False
        return isinstance(self.x, TableColumns) or len(self.x.shape) == 2

    def with_floats(self) -> Part:
        """Return the part with float32 in [0, 1] in the place of bytes."""
        is_bytes = isinstance(self.x, Tensor) and self.x.dtype == torch.uint8
        return replace(self, x=unit_interval(self.tensor)) if is_bytes else self

    @property
    def columns(self) -> TableColumns:
        """The columns of a table."""
        return self.x if isinstance(self.x, TableColumns) else self.frame

    @property
    def frame(self) -> Frame:
        """The columns of a table in memory.

        Raises:
            ValueError: they are on a disk.
        """
        if isinstance(self.x, Frame):
            return self.x
        return Frame(self.features, self.tensor.numpy())

    @property
    def inputs(self) -> Tensor | StoredRows:
        """The rows as numbers.

        Raises:
            ValueError: there are categories, gaps or texts.
        """
        if isinstance(self.x, TableColumns | TextRows):
            what = "rows are texts" if isinstance(self.x, TextRows) else "table has categories or gaps"
            raise ValueError(f"the {what}; encode it")
        return self.x

    @property
    def tensor(self) -> Tensor:
        """The rows as numbers in memory.

        Raises:
            ValueError: there are categories or gaps, or the rows are on a disk.
        """
        if not isinstance(found := self.inputs, Tensor):
            raise ValueError("the rows are on a disk; read them")
        return found


@dataclass(frozen=True)
class Dataset:
    """Training and test rows.

    Args:
        name: the name in reports.
        x: float32; images (n, channels, height, width), or a table (n, features); or texts, int64 (n, length).
        y: int64 (n,) class indices, or float32 (n, outputs) for regression.
        test_x: like ``x``.
        test_y: like ``y``.
        classes: the class names in the order of their indices, () for regression.
        features: the column names of a table, () for images and for arrays without names.
        text: how texts became numbers, None for other rows.

    >>> x, y = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    >>> dataset = Dataset("toy", x, y, x, y, classes=("cat", "dog"), features=())
    >>> dataset.input_shape, dataset.outputs
    ((1, 8, 8), 2)
    """

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    features: tuple[str, ...]
    text: TextEncoding | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row of ``x``; of texts, (length, words), see :func:`torchlasso.models.build`."""
        return tuple(self.x.shape[1:]) if self.text is None else self.text.shape

    @property
    def outputs(self) -> int:
        """The number of classes, or of regression targets."""
        return len(self.classes) or self.y.shape[1]


def unit_interval(x: Tensor) -> Tensor:
    """Return bytes as float32 in [0, 1], and other numbers as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def widen(x: Tensor, channels: int) -> Tensor:
    """Repeat the channel of grey images ``channels`` times; return other images unchanged."""
    return x.expand(-1, channels, -1, -1) if x.dim() == 4 and x.shape[1] == 1 else x


def order_like(part: Part, features: Sequence[str], origin: str) -> Part:
    """Order the columns of a part of numbers like ``features``.

    Raises:
        ValueError: the part has other columns.
    """
    if part.features == tuple(features):
        return part
    refuse_other_columns(part.features, features, origin)
    places = {name: i for i, name in enumerate(part.features)}
    index = torch.tensor([places[name] for name in features])
    return replace(part, x=part.tensor[:, index], features=tuple(features))


def concatenate(parts: Sequence[Part], origins: Sequence[str]) -> Part:
    """Join the rows of several files of one split.

    Raises:
        ValueError: columns, shapes or labels do not fit together.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part, origin in zip(parts, origins, strict=True):
        if kind_of(part.y) != kind_of(first.y):
            kinds = f"{kind_of(part.y)}, in {origins[0]} {kind_of(first.y)}"
            raise ValueError(f"{origin}: its labels are {kinds}; they must be of one kind")
    held = ("y", "groups", "times", "weights")
    y, groups, times, weights = (_joined([getattr(part, name) for part in parts]) for name in held)
    names = tuple(name for part in parts for name in part.names)
    notes = tuple(note for part in parts for note in part.notes)
    texts = [part.x for part in parts if isinstance(part.x, TextRows)]
    if texts:
        if len(texts) < len(parts):
            other = next(i for i, part in enumerate(parts) if not isinstance(part.x, TextRows))
            raise ValueError(f"{origins[other]}: its rows are not texts, as those of other files of the split are")
        return Part(join_texts(texts, origins), y, (), names, groups, times, notes, weights)
    if any(isinstance(part.x, TableColumns) for part in parts):
        frame = join_frames([part.frame for part in parts], origins)
        return Part(frame, y, frame.names, names, groups, times, notes, weights)
    parts = alike(parts)
    ordered = [order_like(part, first.features, origin) for part, origin in zip(parts, origins, strict=True)]
    channels = max(part.tensor.shape[1] for part in ordered)
    xs = [widen(part.tensor, channels) for part in ordered]
    for x, origin in zip(xs, origins, strict=True):
        if x.shape[1:] != xs[0].shape[1:]:
            shapes = f"{tuple(x.shape[1:])}, and in {origins[0]} the shape {tuple(xs[0].shape[1:])}"
            raise ValueError(f"{origin}: its rows have the shape {shapes}; the shapes must be the same")
    return Part(torch.cat(xs), y, first.features, names, groups, times, notes, weights)


def alike(parts: Sequence[Part]) -> Sequence[Part]:
    """Return parts that all have bytes, or all numbers."""
    are_bytes = {part.inputs.dtype == torch.uint8 for part in parts}
    return parts if len(are_bytes) == 1 else [part.with_floats() for part in parts]


def _joined(values: Sequence[Labels | None]) -> Labels | None:
    there = [each for each in values if each is not None]
    return np.concatenate(there) if len(there) == len(values) else None


def kind_of(y: Labels | None) -> str:
    """Describe labels in words.

    >>> kind_of(np.array([1.5]))
    'decimal numbers'
    """
    return "absent" if y is None else {"i": "whole numbers", "f": "decimal numbers"}.get(y.dtype.kind, "text")
