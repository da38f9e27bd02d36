"""Columns of Arrow tables: their types, and text without its variants."""

from __future__ import annotations

from typing import Any

from torchlasso._core.extras import require


def plain_column(pa: Any, column: Any) -> Any:
    """Return a column without a dictionary, and text as plain text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    long = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if long else column


def trimmed(pa: Any, column: Any) -> Any:
    """Return a column as text without spaces around it; an empty text is a gap."""
    compute = require("pyarrow.compute", "data", "reading tables")
    column = compute.utf8_trim_whitespace(column if pa.types.is_string(column.type) else column.cast(pa.string()))
    return compute.if_else(compute.equal(column, ""), pa.scalar(None, pa.string()), column)


def is_date(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def holds_numbers(pa: Any, kind: Any) -> bool:
    """Return whether values of an Arrow type are numbers; so are truth values, durations and empty columns."""
    types = pa.types
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null, types.is_duration)
    return any(check(kind) for check in (*checks, types.is_time))
