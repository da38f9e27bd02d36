"""Convert Arrow tables (of Parquet, CSV and Hugging Face data) to a part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.data.arrays import refuse_infinite
from torchlasso.data.dates import date_parts
from torchlasso.data.frame import Array, Category, Frame
from torchlasso.data.image_part import image_part
from torchlasso.data.labels import CLASSIFICATION, REGRESSION, ColumnSelection, raw_labels
from torchlasso.data.messages import listed, row
from torchlasso.data.records import Labels, Part
from torchlasso.data.text_columns import DECIMAL, typed

FEW = 20  # distinct values that a column of numbers and text may have


def table_part(table: Any, columns: ColumnSelection, origin: str, *, image_paths: bool = False) -> Part:
    """Convert the images of a table, or its columns of numbers, categories and dates, with its labels.

    A column of images is binary or has the form ``{bytes, path}``. If there is one, only it and the label are used.
    Columns of text become numbers or dates if all their values are written as such, and else categories. If all columns
    are numbers without gaps, the part has them as a tensor, else as a :class:`~torchlasso.data.frame.Frame`.

    Args:
        table: a ``pyarrow.Table``.
        columns: the columns that are no features.
        origin: the name of the data in messages.
        image_paths: whether an image without bytes may be read from its path.

    Raises:
        ValueError: the table cannot be used; the message says why.
    """
    pa = require("pyarrow", "data", "reading tables")
    labels = columns.find_labels(table.column_names, origin)
    if table.num_rows == 0:
        raise ValueError(f"{origin}: no rows; at least one is needed")
    y = _labels(pa, table, labels, columns, origin) if labels else None
    group, pattern = columns.group_column(table.column_names)
    groups = (
        None
        if group is None or group not in table.column_names
        else _groups(pa, table.column(group), group, pattern, origin)
    )
    times = _times(pa, table.column(columns.time), columns, origin) if columns.time in table.column_names else None
    others = {*labels, group, columns.time, *columns.ignore}
    left = [name for name in table.column_names if name not in others]
    pictures = [name for name in left if _is_image(pa, table.schema.field(name).type)]
    if len(pictures) > 1:
        raise ValueError(f"{origin}: several columns of images ({listed(pictures)}); give all but one in ignore=")
    if pictures:
        images = _encoded(table.column(pictures[0]), pictures[0], origin, image_paths)
        return image_part(images, table.num_rows, lambda index: f"{origin}, {row(index)}", columns, y, groups, times)
    if not left:
        raise ValueError(f"{origin}: there are no columns besides the label; at least one is needed")
    frame = table_frame(pa, table.select(left), columns.categories, origin)
    if not frame.categories and not np.isnan(frame.numbers).any():
        return Part(torch.from_numpy(frame.numbers), y, frame.names, groups=groups, times=times)
    return Part(frame, y, frame.names, groups=groups, times=times)


def _is_image(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _encoded(column: Any, name: str, origin: str, image_paths: bool) -> Iterator[bytes | Path]:
    index = 0
    for chunk in column.iterchunks():
        for value in chunk.to_pylist():
            data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
            if data is not None:
                yield data
            elif path and image_paths:
                yield Path(path)
            else:
                raise ValueError(f"{origin}: no image in column {name!r}, {row(index)}; every row needs one")
            index += 1


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
    column = _plain(pa, column)
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


def _plain(pa: Any, column: Any) -> Any:
    """Return a column without a dictionary, and text as plain text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    long = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if long else column


def _groups(pa: Any, column: Any, name: str, pattern: str | None, origin: str) -> Labels:
    """Return the group of each row, as text."""
    column = _trimmed(pa, _plain(pa, column))
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
    column = _plain(pa, column)
    if pa.types.is_string(column.type):
        [column] = typed(pa, [column])
    if column.null_count:
        where = row(column.is_null().to_numpy().argmax())
        raise ValueError(f"{origin}: no time in column {columns.time!r}, {where} ({column.null_count} such rows)")
    if _is_date(pa, column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if not holds_numbers(pa, column.type):
        raise ValueError(f"{origin}: column {columns.time!r} holds neither dates, as in 2024-01-31, nor numbers")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def table_frame(pa: Any, table: Any, categories: tuple[str, ...], origin: str) -> Frame:
    """Convert columns of numbers, text and dates to a frame.

    Args:
        pa: the module ``pyarrow``.
        table: the columns, a ``pyarrow.Table``.
        categories: those whose numbers are categories.
        origin: the name of the data in messages.

    Raises:
        ValueError: a column is of another kind, has infinite numbers, or mixes numbers and text.
    """
    held = {name: _plain(pa, table.column(name)) for name in table.column_names}
    as_text = [n for n, column in held.items() if pa.types.is_string(column.type) and n not in categories]
    held.update(zip(as_text, typed(pa, [held[name] for name in as_text]), strict=True))
    other = [name for name, column in held.items() if not _is_known(pa, column.type)]
    if other:
        what, them = ("column", "it") if len(other) == 1 else ("columns", "them")
        kinds = f"{other[0]!r} has the type {held[other[0]].type}"
        raise ValueError(
            f"{origin}: no numbers, text or dates: {what} {listed(other)} ({kinds}); leave {them} out with ignore="
        )
    names, origins, found, numeric = list[str](), dict[str, str](), dict[str, Category](), list[Any]()
    for name, column in held.items():
        if _is_date(pa, column.type) and name not in categories:
            when, parts = date_parts(column.cast(pa.timestamp("us")).to_numpy())
            numeric.append(when)
            made = {f"{name}: {part}": category for part, category in parts.items()}
            found |= made
            origins |= dict.fromkeys(made, name)
            names += [name, *made]
        elif holds_numbers(pa, column.type) and name not in categories:
            numeric.append(column)
            names.append(name)
        else:
            found[name] = _category(pa, column)
            names.append(name)
            if name not in categories:
                _refuse_mixed(name, found[name], origin)
    x = np.empty((table.num_rows, len(numeric)), dtype=np.float32)
    numeric_names = [name for name in names if name not in found]
    for index, column in enumerate(numeric):
        numeric[index] = None  # a column is freed as soon as it is copied
        values = column if isinstance(column, np.ndarray) else _numbers(pa, column, numeric_names[index], origin)
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are found below
            x[:, index] = values
    refuse_infinite(x, numeric_names, origin, gaps=True)
    return Frame(tuple(names), x, found, origins)


def _numbers(pa: Any, column: Any, name: str, origin: str) -> Array:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_duration(column.type) or pa.types.is_time(column.type):
        column = column.cast(
            pa.int64() if pa.types.is_duration(column.type) or pa.types.is_time64(column.type) else pa.int32()
        )
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())  # a gap becomes NaN
    except pa.ArrowException as error:
        raise ValueError(f"{origin}: column {name!r}: {first_line(error)}") from error


def _category(pa: Any, column: Any) -> Category:
    coded = _trimmed(pa, column).combine_chunks()
    coded = (coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded).dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Category(codes.astype(np.int32), tuple(coded.dictionary.to_pylist()))


def _trimmed(pa: Any, column: Any) -> Any:
    """Return a column as text without spaces around it; an empty text is a gap."""
    compute = require("pyarrow.compute", "data", "reading tables")
    column = compute.utf8_trim_whitespace(column if pa.types.is_string(column.type) else column.cast(pa.string()))
    return compute.if_else(compute.equal(column, ""), pa.scalar(None, pa.string()), column)


def _refuse_mixed(name: str, column: Category, origin: str) -> None:
    """Refuse a column of which most values are numbers, and some are text."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    there = np.flatnonzero(counts).tolist()
    if len(there) <= FEW:
        return
    text = [i for i in there if not DECIMAL.match(column.values[i])]
    if 2 * counts[text].sum() < counts.sum():
        first = int(np.isin(column.codes, text).argmax())
        value = column.values[column.codes[first]]
        raise ValueError(
            f"{origin}: column {name!r} has {value!r} in {row(first)}, and numbers in most other rows; correct it or "
            "make it empty, leave the column out with ignore=, or read all its values as categories with categories="
        )


def _is_known(pa: Any, kind: Any) -> bool:
    return holds_numbers(pa, kind) or _is_date(pa, kind) or bool(pa.types.is_string(kind))


def _is_date(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def holds_numbers(pa: Any, kind: Any) -> bool:
    """Return whether values of an Arrow type are numbers; so are truth values, durations and empty columns."""
    types = pa.types
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null, types.is_duration)
    return any(check(kind) for check in (*checks, types.is_time))
