"""Convert Arrow tables (of Parquet, CSV and Hugging Face data) to a part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.data.arrays import Array, refuse_infinite
from torchlasso.data.images import decode_images
from torchlasso.data.labels import ColumnSelection, raw_labels
from torchlasso.data.messages import listed, row
from torchlasso.data.records import Labels, Part


def table_part(table: Any, columns: ColumnSelection, origin: str, *, image_paths: bool = False) -> Part:
    """Convert the images or the numeric columns of a table, with its labels.

    A column of images is binary or has the form ``{bytes, path}``. If there is one, only it and the label are used.

    Args:
        table: a ``pyarrow.Table``.
        columns: the label column and the columns to ignore.
        origin: the name of the data in messages.
        image_paths: whether an image without bytes may be read from its path.

    Raises:
        ValueError: the table cannot be used; the message says why.
    """
    pa = require("pyarrow", "data", "reading tables")
    label = columns.find_label(table.column_names, origin)
    if table.num_rows == 0:
        raise ValueError(f"{origin}: no rows; at least one is needed")
    y = None if label is None else _labels(pa, table.column(label), label, columns, origin)
    groups = None if columns.group is None else _groups(table.column(columns.group), columns.group, origin)
    others = {label, columns.group, *columns.ignore}
    left = [name for name in table.column_names if name not in others]
    pictures = [name for name in left if _is_image(pa, table.schema.field(name).type)]
    if len(pictures) > 1:
        raise ValueError(f"{origin}: several columns of images ({listed(pictures)}); give all but one in ignore=")
    if pictures:
        images = _encoded(table.column(pictures[0]), pictures[0], origin, image_paths)
        return Part(decode_images(images, lambda index: f"{origin}, {row(index)}"), y, groups=groups)
    return Part(torch.from_numpy(_numbers(pa, table, left, origin)), y, tuple(left), groups=groups)


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


def _labels(pa: Any, column: Any, name: str, columns: ColumnSelection, origin: str) -> Labels | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if column.null_count:
        if column.null_count == len(column) and not columns.required:
            return None
        where = f"column {name!r}, {row(column.is_null().to_numpy().argmax())}"
        raise ValueError(f"{origin}: no label in {where} ({column.null_count} such rows)")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    values = np.asarray(column.to_numpy())
    return raw_labels(values.astype(np.str_) if text else values, f"{origin}, column {name!r}")


def _groups(column: Any, name: str, origin: str) -> Labels:
    """Return the group of each row, as text."""
    if column.null_count:
        where = row(column.is_null().to_numpy().argmax())
        raise ValueError(f"{origin}: no group in column {name!r}, {where} ({column.null_count} such rows)")
    return np.array([str(value) for value in column.to_pylist()])


def _numbers(pa: Any, table: Any, names: list[str], origin: str) -> Array:
    """Convert the columns to float32, (n, columns)."""
    if not names:
        raise ValueError(f"{origin}: there are no columns besides the label; at least one numeric column is needed")
    kinds = {name: table.schema.field(name).type for name in names}
    other = [name for name, kind in kinds.items() if not _is_number(pa, kind)]
    if other:
        what, them = ("column", "it") if len(other) == 1 else ("columns", "them")
        example = f"{other[0]!r} holds {_example(table.column(other[0]))}"
        how = f"leave {them} out with ignore=, or name the label with label="
        raise ValueError(f"{origin}: not numeric: {what} {listed(other)} ({example}); {how}")
    x = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        column = table.column(name)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        try:
            values = column.cast(pa.float64(), safe=False).to_numpy()  # a missing value becomes NaN
        except pa.ArrowException as error:
            raise ValueError(f"{origin}: column {name!r}: {first_line(error)}") from error
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are found below
            x[:, index] = values
    refuse_infinite(x, names, origin)
    return x


def _is_number(pa: Any, kind: Any) -> bool:
    types = pa.types
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    return any(check(kind) for check in checks)


def _example(column: Any) -> str:
    """Return the first value of a column that is not a number, or else the column's type."""
    for value in column.to_pylist():
        try:
            float(value)
        except (TypeError, ValueError):
            if isinstance(value, str):
                return repr(value[:40])
    return str(column.type)
