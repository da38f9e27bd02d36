"""Convert Arrow tables (of Parquet, CSV and Hugging Face data) to a part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.data.arrays import refuse_infinite
from torchlasso.data.arrow_types import holds_numbers, is_date, plain_column, trimmed
from torchlasso.data.dates import date_parts
from torchlasso.data.frame import Array, Category, Frame
from torchlasso.data.image_part import image_part
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed, row
from torchlasso.data.precision import is_coarse, notes_of_coarse, whole_numbers
from torchlasso.data.records import Part
from torchlasso.data.roles import Roles, part_of, roles_of
from torchlasso.data.text_columns import DECIMAL, typed
from torchlasso.data.texts_in_tables import text_columns_in, texts_of

FEW = 20  # distinct values that a column of numbers and text may have


def table_part(table: Any, columns: ColumnSelection, origin: str, *, image_paths: bool = False) -> Part:
    """Convert the images of a table, or its columns of numbers, categories and dates, with its labels.

    A column of images is binary or has the form ``{bytes, path}``. If there is one, only it and the label are used.
    Columns of text become numbers or dates if all their values are written as such, and else categories. If all columns
    are numbers without gaps, the part has them as a tensor, else as a :class:`~torchlasso.data.frame.Frame`. Of a table
    with a column of texts (:func:`~torchlasso.data.texts.text_columns_in`), only it and the label are used.

    Args:
        table: a ``pyarrow.Table``.
        columns: the columns that are no features.
        origin: the name of the data in messages.
        image_paths: whether an image without bytes may be read from its path.

    Raises:
        ValueError: the table cannot be used; the message says why.
    """
    pa = require("pyarrow", "data", "reading tables")
    roles = roles_of(pa, table.select, table.column_names, columns, origin)
    left = roles.inputs
    if table.num_rows == 0:
        raise ValueError(f"{origin}: no rows; at least one is needed")
    if pictures := image_columns(pa, table.schema, left, origin):
        images = encoded_images(table.column(pictures[0]), pictures[0], origin, image_paths)
        return image_part(images, table.num_rows, lambda index: f"{origin}, {row(index)}", columns, roles)
    if not left:
        raise ValueError(f"{origin}: there are no columns besides the label; at least one is needed")
    if read := columns.text or text_columns_in(pa, table.select(left)):
        return text_part(pa, table, read, roles, origin)
    frame = table_frame(pa, table.select(left), columns.categories, origin)
    is_plain = not frame.categories and not np.isnan(frame.numbers).any()
    x = torch.from_numpy(frame.numbers) if is_plain else frame
    return part_of(x, roles, frame.names, notes_of_coarse(frame.coarse))


def text_part(pa: Any, table: Any, read: tuple[str, ...], roles: Roles, origin: str) -> Part:
    """Make a part of columns of texts.

    Raises:
        ValueError: one of them has another role, or holds something else.
    """
    refuse_other_roles(read, roles, origin)
    texts, notes = texts_of(pa, table, read, roles.inputs, origin)
    return part_of(texts, roles, notes=tuple(notes))


def refuse_other_roles(read: tuple[str, ...], roles: Roles, origin: str) -> None:
    """Raise ``ValueError`` if a column of texts has another role."""
    if twice := [name for name in read if name not in roles.inputs]:
        raise ValueError(f"{origin}: the column {listed(twice)} cannot be both the text and something else")


def image_columns(pa: Any, schema: Any, names: list[str], origin: str) -> list[str]:
    """Return the column of images among ``names``, if there is one.

    Raises:
        ValueError: there are several.
    """
    found = [name for name in names if is_image(pa, schema.field(name).type)]
    if len(found) > 1:
        raise ValueError(f"{origin}: several columns of images ({listed(found)}); give all but one in ignore=")
    return found


def is_image(pa: Any, kind: Any) -> bool:
    """Return whether values of an Arrow type are images."""
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def encoded_images(
    column: Any, name: str, origin: str, image_paths: bool = False, first: int = 0
) -> Iterator[bytes | Path]:
    """Yield the images of a column of Arrow, or their files.

    Args:
        column: the images.
        name: of the column, for messages.
        origin: the name of the data, for messages.
        image_paths: whether an image without bytes may be read from its path.
        first: the number of the first row, for messages.

    Raises:
        ValueError: a row has none.
    """
    index = first
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


def table_frame(pa: Any, table: Any, categories: tuple[str, ...], origin: str, dates: tuple[str, ...] = ()) -> Frame:
    """Convert columns of numbers, text and dates to a frame.

    Args:
        pa: the module ``pyarrow``.
        table: the columns, a ``pyarrow.Table``.
        categories: those whose numbers are categories.
        origin: the name of the data in messages.
        dates: columns known to hold dates, if any value is there.

    Raises:
        ValueError: a column is of another kind, has infinite numbers, or mixes numbers and text.
    """
    held = {name: plain_column(pa, table.column(name)) for name in table.column_names}
    as_text = [n for n, column in held.items() if pa.types.is_string(column.type) and n not in categories]
    held.update(zip(as_text, typed(pa, [held[name] for name in as_text], booleans=True), strict=True))
    for name in dates:
        if not is_date(pa, held[name].type):
            held[name] = pa.chunked_array([pa.nulls(table.num_rows, pa.timestamp("us"))])
    other = [name for name, column in held.items() if not _is_known(pa, column.type)]
    if other:
        what, them = ("column", "it") if len(other) == 1 else ("columns", "them")
        kinds = f"{other[0]!r} has the type {held[other[0]].type}"
        raise ValueError(
            f"{origin}: no numbers, text or dates: {what} {listed(other)} ({kinds}); leave {them} out with ignore="
        )
    names, origins, found, numeric = list[str](), dict[str, str](), dict[str, Category](), list[Any]()
    for name, column in held.items():
        if is_date(pa, column.type) and name not in categories:
            when, parts = date_parts(column.cast(pa.timestamp("us"), safe=False).to_numpy())
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
    coarse = list[str]()
    for index, column in enumerate(numeric):
        numeric[index] = None  # a column is freed as soon as it is copied
        name = numeric_names[index]
        values = column if isinstance(column, np.ndarray) else _numbers(pa, column, name, origin)
        exact = None if isinstance(column, np.ndarray) else whole_numbers(pa, column)
        if is_coarse(values if exact is None else exact):
            coarse.append(name)
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are found below
            x[:, index] = values
    refuse_infinite(x, numeric_names, origin, gaps=True)
    return Frame(tuple(names), x, found, origins, tuple(coarse))


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
    coded = trimmed(pa, column).dictionary_encode().combine_chunks()  # encoded first: a chunk of text has at most 2 GB
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Category(codes.astype(np.int32), tuple(coded.dictionary.to_pylist()))


def _refuse_mixed(name: str, column: Category, origin: str) -> None:
    """Refuse a column of which most values are numbers, and some are text; postcodes are codes, and none of these."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    there = np.flatnonzero(counts).tolist()
    if len(there) <= FEW:
        return
    text = [i for i in there if not DECIMAL.match(column.values[i])]
    if text and 2 * counts[text].sum() < counts.sum():
        first = int(np.isin(column.codes, text).argmax())
        value = column.values[column.codes[first]]
        raise ValueError(
            f"{origin}: column {name!r} has {value!r} in {row(first)}, and numbers in most other rows; correct it or "
            "make it empty, leave the column out with ignore=, or read all its values as categories with categories="
        )


def _is_known(pa: Any, kind: Any) -> bool:
    return holds_numbers(pa, kind) or is_date(pa, kind) or bool(pa.types.is_string(kind))
