"""Descriptions of data in words and counts, for the card of a run or of a selection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchlasso.data.card import DataCard, PartCard
from torchlasso.data.encoding import Encoding
from torchlasso.data.frame import TableColumns
from torchlasso.data.labels import class_indices, class_names
from torchlasso.data.precision import is_coarse, notes_of_coarse
from torchlasso.data.records import Labels, Part
from torchlasso.data.suspicions import suspicions


def inputs_in_words(train: Part, shape: tuple[int, ...]) -> str:
    """Describe inputs by their columns or the size of the images; ``shape`` is of the rows as numbers."""
    if train.is_table:
        columns = len(train.columns.names) or shape[1]
        same = columns == shape[1]
        return f"{columns:,} column{'s' * (columns != 1)}" + ("" if same else f", {shape[1]:,} inputs")
    channels, height, width = shape[1:]
    return f"images of {height}×{width} pixels, {'grey' if channels == 1 else f'{channels} channels'}"


def targets_in_words(classes: tuple[str, ...], targets: Any, is_survival: bool) -> str:
    """Describe targets, (n,) or (n, outputs); of survival, the second column has the events."""
    if is_survival:
        return f"times, {int(targets[:, 1].sum()):,} of them of events"
    if classes:
        return f"{len(classes)} classes"
    return "a number to predict" if targets.shape[1] == 1 else f"{targets.shape[1]} numbers to predict"


def rows_of_classes(y: Tensor, classes: tuple[str, ...]) -> dict[str, int]:
    """Count the rows of each class, of indices."""
    counts = torch.bincount(y, minlength=len(classes)).tolist() if classes else []
    return dict(zip(classes, counts, strict=True))


def filled_gaps(frame: TableColumns, encoding: Encoding) -> dict[str, int]:
    """Return the number of gaps of each column that is read."""
    return {name: count for name, count in frame.gaps.items() if name not in encoding.left_out}


def notes_of_targets(y: Labels) -> tuple[str, ...]:
    """Return a note that names targets which lost much of what they say."""
    columns = y.reshape(len(y), -1).T
    return notes_of_coarse([f"target {place}" for place, column in enumerate(columns, 1) if is_coarse(column)])


def card_of_rows(name: str, origin: str, read: Part, shape: tuple[int, ...], encoding: Encoding | None) -> DataCard:
    """Make the card of rows with labels that are not divided.

    Args:
        name: of the data.
        origin: of the rows, in words.
        read: the rows as they were read.
        shape: theirs as numbers.
        encoding: what made numbers of them, if it was needed.
    """
    y = read.y
    classes = () if y is None or y.dtype.kind == "f" else class_names(y)
    counts = rows_of_classes(class_indices(y, classes), classes) if y is not None and classes else {}
    return DataCard(
        name=name,
        inputs=inputs_in_words(read, shape),
        targets=targets_in_words(classes, None if y is None else y.reshape(len(y), -1), is_survival=False),
        parts=(PartCard("rows", shape[0], origin, counts),),
        gaps={} if encoding is None else filled_gaps(read.columns, encoding),
        encoded={} if encoding is None else encoding.expanded,
        left_out={} if encoding is None else encoding.left_out,
        notes=(*read.notes, *suspicions(read), *(notes_of_targets(y) if y is not None and not classes else ())),
    )
