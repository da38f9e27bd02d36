"""Columns of texts: how they are told from categories, and their rows as they were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchlasso._core.extras import require
from torchlasso.data.frame import Array
from torchlasso.data.messages import listed

NAMES = ("text", "sentence", "content", "review")  # of columns that are read alone if they hold texts
LONG = 20  # characters of a text, at least, in the median


@dataclass(frozen=True)
class Texts:
    """Texts as they were read.

    Attributes:
        values: the texts, (n,), of Python strings.
        columns: the columns that they are of; () if they have none, as in a file of lines.

    >>> texts = Texts(np.array(["a cat", "two dogs"], dtype=object), ("text",))
    >>> len(texts), texts.rows(np.array([1])).values.tolist()
    (2, ['two dogs'])
    """

    values: Array
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Array) -> Texts:
        """Select rows by their numbers."""
        return Texts(self.values[index], self.columns)


def join_texts(parts: Sequence[Texts], origins: Sequence[str]) -> Texts:
    """Join the rows of several files.

    Raises:
        ValueError: a file has other columns of texts than the first one.
    """
    first = parts[0]
    for part, origin in zip(parts, origins, strict=True):
        if part.columns != first.columns:
            raise ValueError(f"{origin}: its texts are of {_named(part)}, in {origins[0]} of {_named(first)}")
    return Texts(np.concatenate([part.values for part in parts]), first.columns)


def _named(texts: Texts) -> str:
    return f"column {listed(texts.columns)}" if texts.columns else "a file of lines"


def text_columns_in(pa: Any, table: Any) -> tuple[str, ...]:
    """Return the column of texts of a table of features; () if its columns are to be read as categories and numbers.

    It is a column that is called text, sentence, content or review, or the only column, and whose values are texts: of
    20 characters or more in the median, with spaces or letters beyond ASCII, and different in more than half of the
    rows.

    Args:
        pa: the module ``pyarrow``.
        table: the columns without labels.
    """
    wanted = named_as_texts(table.column_names)
    return next(((name,) for name in wanted if holds_texts(pa, table.column(name))), ())


def named_as_texts(names: Sequence[str]) -> list[str]:
    """Return the columns that may hold texts, by their names."""
    return [*names] if len(names) == 1 else [name for name in names if name.lower() in NAMES]


def holds_texts(pa: Any, column: Any) -> bool:
    """Return whether most values of a column are texts, and different."""
    if not _is_text(pa, column.type):
        return False
    compute = require("pyarrow.compute", "data", "reading texts")
    column = column.drop_null()
    if not len(column):
        return False
    of_words = compute.match_substring_regex(column, r"\S\s+\S|[^\x00-\x7f]")
    median = float(np.median(compute.utf8_length(column).to_numpy()))
    different = compute.count_distinct(column).as_py()
    return bool(median >= LONG and 2 * compute.sum(of_words).as_py() > len(column) and 2 * different > len(column))


def _is_text(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def texts_of(
    pa: Any, table: Any, columns: tuple[str, ...], names: Sequence[str], origin: str
) -> tuple[Texts, list[str]]:
    """Read columns of texts, joined by a line break, and say what a person should know.

    A gap is an empty text.

    Args:
        pa: the module ``pyarrow``.
        table: has the columns.
        columns: those of texts.
        names: of all columns without roles.
        origin: the name of the data in messages.

    Raises:
        ValueError: a column holds something else, or all texts are empty.
    """
    read = []
    for name in columns:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not _is_text(pa, column.type):
            raise ValueError(f"{origin}: column {name!r} holds values of type {column.type}, not texts")
        read.append(column.fill_null("").to_numpy())
    joined = (
        [text.strip() for text in read[0]]
        if len(read) == 1
        else ["\n".join(row).strip() for row in zip(*read, strict=True)]
    )
    values = np.empty(len(joined), dtype=object)
    values[:] = joined
    empty = sum(not text for text in joined)
    if empty == len(joined):
        raise ValueError(f"{origin}: all texts of column {listed(columns)} are empty")
    others = [name for name in names if name not in columns]
    notes = [f"{_counted(empty)} empty."] if empty else []
    if others:
        them = "is" if len(others) == 1 else "are"
        notes.append(f"Only the text is read; {listed(others)} {them} not.")
    return Texts(values, columns), notes


def _counted(count: int) -> str:
    return "1 text is" if count == 1 else f"{count:,} texts are"
