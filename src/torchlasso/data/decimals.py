"""Numbers in text whose commas or points divide decimals, or thousands."""

from __future__ import annotations

from typing import Any

from torchlasso._core.extras import require
from torchlasso.data.messages import listed

COMMA = r"^\s*([+-]?[0-9]*),([0-9]+([eE][+-]?[0-9]+)?)\s*$"  # a number with a decimal comma
POINT = r"^\s*[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?\s*$"
WHOLE = r"^\s*[+-]?[0-9]{1,3}\s*$"  # such as 250
THOUSANDS = r"^\s*[+-]?[1-9][0-9]{{0,2}}({}[0-9]{{3}})+\s*$"  # and, beside it, 1,250 or 1.250
LONG = r"^\s*[+-]?[0-9]{4,}\s*$"  # and not 1250


def with_points(pa: Any, table: Any) -> Any:
    """Write numbers with decimal commas with points, as files with other delimiters have them in much of Europe.

    A column in which commas divide thousands, or in which some numbers have points, stays as it is, and is text: a
    guess would make other numbers of it without a word.
    """
    compute = require("pyarrow.compute", "data", "reading CSV")

    def is_decimal(column: Any) -> bool:
        if not _some(column, COMMA) or _some(column, POINT):
            return False
        return not (_all_with(column, ",", THOUSANDS.format(",")) and _some(column, WHOLE))

    columns = [
        compute.replace_substring_regex(column, COMMA, r"\1.\2") if is_decimal(column) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


class PointedThousands:
    """A search for columns of text such as ``1.250`` beside ``250``, whose points may divide thousands.

    They are read as decimal numbers, which most of them are, and named.
    """

    def __init__(self) -> None:
        self._pointed, self._whole, self._decimal = set[str](), set[str](), set[str]()

    def see(self, table: Any) -> None:
        """Look at the columns of some rows."""
        for name in table.column_names:
            column = table.column(name)
            if name in self._decimal:
                continue
            if _some(column, WHOLE):
                self._whole.add(name)
            if _some(column, LONG):
                self._decimal.add(name)
            elif _some(column, POINT):
                is_pointed = _all_with(column, r"\.", THOUSANDS.format(r"\."))
                (self._pointed if is_pointed else self._decimal).add(name)

    @property
    def notes(self) -> list[str]:
        """A sentence that names them, if there are any."""
        found = (self._pointed & self._whole) - self._decimal
        if not found:
            return []
        return [f"{listed(sorted(found))}: numbers such as 1.250 are read as 1.25; if they are 1250, write them so."]


def _some(column: Any, pattern: str) -> bool:
    compute = require("pyarrow.compute", "data", "reading CSV")
    return bool(compute.any(compute.match_substring_regex(column, pattern)).as_py())


def _all_with(column: Any, mark: str, pattern: str) -> bool:
    """Return whether all values that have a mark match a pattern."""
    compute = require("pyarrow.compute", "data", "reading CSV")
    marked = column.filter(compute.match_substring_regex(column, mark))
    return bool(compute.all(compute.match_substring_regex(marked, pattern)).as_py())
