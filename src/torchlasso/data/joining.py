"""Tables of several files as one: the same columns, of types that hold the values of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchlasso.data.arrow_types import is_date, plain_column
from torchlasso.data.frame import refuse_other_columns


def origin_of(origins: Sequence[str]) -> str:
    """Name several files, whose rows are counted through all of them.

    >>> origin_of(["a.csv"]), origin_of(["a.csv", "b.csv"])
    ('a.csv', 'a.csv and 1 more as one table')
    """
    return origins[0] if len(origins) == 1 else f"{origins[0]} and {len(origins) - 1} more as one table"


def common_schema(pa: Any, schemas: Sequence[Any], origins: Sequence[str]) -> Any:
    """Return the schema of tables as one: a column of numbers and text is text, and so on.

    Args:
        pa: the module ``pyarrow``.
        schemas: those of the tables.
        origins: the names of the tables in messages.

    Raises:
        ValueError: a table has other columns than the first one, or a column has values that cannot be joined.
    """
    first, kinds = schemas[0], list[Any]()
    for schema, origin in zip(schemas, origins, strict=True):
        refuse_other_columns(schema.names, first.names, origin)
    if all(schema.equals(first) for schema in schemas):
        return first
    for name in first.names:
        found = [schema.field(name).type for schema in schemas if not pa.types.is_null(schema.field(name).type)]
        kinds.append((name, _common(pa, name, found, origins) if found else pa.null()))
    return pa.schema(kinds)


def _common(pa: Any, name: str, kinds: Sequence[Any], origins: Sequence[str]) -> Any:
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    plain = [_plain(pa, kind) for kind in kinds]
    types = pa.types
    if all(kind == plain[0] for kind in plain):
        return plain[0]
    if any(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) for kind in plain):
        raise ValueError(
            f"{origins[0]}: column {name!r} has the type {kinds[0]}, and in another file one of "
            f"{', '.join(map(str, kinds))}; the types must be the same"
        )
    if all(types.is_integer(kind) or types.is_boolean(kind) for kind in plain):
        return pa.int64()
    if all(types.is_integer(k) or types.is_boolean(k) or types.is_floating(k) or types.is_decimal(k) for k in plain):
        return pa.float64()
    return pa.timestamp("us") if all(is_date(pa, kind) for kind in plain) else pa.string()


def _plain(pa: Any, kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def with_schema(pa: Any, table: Any, schema: Any) -> Any:
    """Return a table with the columns of a schema of :func:`common_schema`, in its order."""
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        column = table.column(field.name)
        same = column.type == field.type
        columns.append(column if same else plain_column(pa, column).cast(field.type, safe=False))
    return pa.table(columns, names=schema.names)


def joined_tables(pa: Any, tables: Sequence[Any], origins: Sequence[str]) -> Any:
    """Join the rows of tables with the same columns.

    Raises:
        ValueError: the tables do not fit together.
    """
    if len(tables) == 1:
        return tables[0]
    schema = common_schema(pa, [table.schema for table in tables], origins)
    return pa.concat_tables([with_schema(pa, table, schema) for table in tables])
