"""Columns of texts in tables of Arrow: how they are told from categories, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from torchlasso._core.extras import require
from torchlasso.data.frame import Array
from torchlasso.data.messages import listed
from torchlasso.data.texts import Texts, as_array

NAMES = ("text", "sentence", "content", "review")  # of columns that are read alone if they hold texts
LONG = 20  # characters of a text, at least, in the median
AT_ONCE = 1024  # texts that are looked at together


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
    return next(((name,) for name in wanted if hold_texts(pa, iter([table.column(name)]))), ())


def named_as_texts(names: Sequence[str]) -> list[str]:
    """Return the columns that may hold texts, by their names."""
    return [*names] if len(names) == 1 else [name for name in names if name.lower() in NAMES]


def hold_texts(pa: Any, columns: Iterator[Any]) -> bool:
    """Return whether most values of columns, of some rows each, are texts, and different."""
    compute = require("pyarrow.compute", "data", "reading texts")
    lengths, hashes, of_words = list[Array](), list[Array](), 0
    for column in columns:
        if not is_text(pa, column.type):
            return False
        values = column.drop_null()
        for start in range(0, len(values), AT_ONCE):
            some = values.slice(start, AT_ONCE)
            of_words += compute.sum(compute.match_substring_regex(some, r"\S\s+\S|[^\x00-\x7f]")).as_py()
            lengths.append(compute.utf8_length(some).to_numpy().astype(np.int32))
            hashes.append(np.fromiter(map(hash, some.to_pylist()), dtype=np.int64, count=len(some)))
    count = sum(map(len, lengths))
    if not count or 2 * of_words <= count or np.median(np.concatenate(lengths)) < LONG:
        return False
    return bool(2 * len(np.unique(np.concatenate(hashes))) > count)


def is_text(pa: Any, kind: Any) -> bool:
    """Return whether values of an Arrow type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def refuse_other_types(pa: Any, schema: Any, columns: Sequence[str], origin: str) -> None:
    """Raise ``ValueError`` if a column does not hold texts.

    Args:
        pa: the module ``pyarrow``.
        schema: of the table.
        columns: those of texts.
        origin: the name of the data in messages.
    """
    for name in columns:
        kind = schema.field(name).type
        if not is_text(pa, kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise ValueError(f"{origin}: column {name!r} holds values of type {kind}, not texts")


def joined_columns(pa: Any, table: Any, columns: Sequence[str]) -> list[str]:
    """Return columns of texts, joined by a line break, without spaces around them. A gap is an empty text."""
    read = []
    for name in columns:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        read.append(column.fill_null("").to_numpy())
    if len(read) == 1:
        return [text.strip() for text in read[0]]
    return ["\n".join(row).strip() for row in zip(*read, strict=True)]


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
    refuse_other_types(pa, table.schema, columns, origin)
    joined = joined_columns(pa, table, columns)
    empty = sum(not text for text in joined)
    return Texts(as_array(joined), columns), notes_of(empty, len(joined), columns, names, origin)


def notes_of(empty: int, count: int, columns: tuple[str, ...], names: Sequence[str], origin: str) -> list[str]:
    """Say what a person should know of columns of texts.

    Args:
        empty: the number of empty texts.
        count: the number of texts.
        columns: those of texts.
        names: of all columns without roles.
        origin: the name of the data in messages.

    Raises:
        ValueError: all texts are empty.
    """
    if empty == count:
        raise ValueError(f"{origin}: all texts of column {listed(columns)} are empty")
    others = [name for name in names if name not in columns]
    found = ["1 text is empty." if empty == 1 else f"{empty:,} texts are empty."] if empty else []
    if others:
        them = "is" if len(others) == 1 else "are"
        found.append(f"Only the text is read; {listed(others)} {them} not.")
    return found
