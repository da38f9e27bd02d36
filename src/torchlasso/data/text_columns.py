"""Columns of text that hold something else: whole and decimal numbers, true and false, or dates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from torchlasso._core.extras import require

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # in upper or lower case, in columns of numbers and dates
INTEGER = r"^[+-]?[0-9]{1,19}$"
LARGE = r"^[+-]?[0-9]{19}$"  # which 64 bits may not hold
PADDED = r"^0[0-9]"  # such as a postcode, which is no number
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity|nan)$"
DECIMAL = re.compile(NUMBER)
BOOLEAN = r"^(?i:true|false)$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?$"
ZONED = DATE.removesuffix(")?$") + "(Z|[+-][0-9]{2}:?[0-9]{2}))$"
AT_ONCE = 1_000_000  # values whose type is found in one call
LARGEST = 1 << 28  # bytes of a chunk of text


def are_values(names: Sequence[str]) -> bool:
    """Return whether the names of columns look like a row of a file without a header.

    Half of them are numbers, at least two; rising ones may be names, such as wavelengths.

    >>> are_values(["5.1", "3.5", "setosa"]), are_values(["400", "402.5", "label"]), are_values(["a", "2020"])
    (True, False, False)
    """
    numbers = [float(name) for name in names if DECIMAL.match(name)]
    are_rising = all(before < after for before, after in pairwise(numbers))
    return len(numbers) >= max(2, len(names) / 2) and not are_rising


def typed(pa: Any, columns: Sequence[Any], missing: Sequence[str] = MISSING, *, booleans: bool = False) -> list[Any]:
    """Convert columns of text to numbers, true and false, or dates where all values of a column are written as such.

    Whole numbers with leading zeros, such as postcodes, stay text.

    Many columns are converted at once: a call for each would take longer than the work.

    Args:
        pa: the module ``pyarrow``.
        columns: chunked arrays of text, of one length.
        missing: what stands for a gap, in lower case, in a column of numbers or dates. In others, only an empty text.
        booleans: whether true and false become booleans; else they stay text.

    Returns:
        A chunked array for each: whole numbers (64 bits), decimal ones, booleans, timestamps (microseconds), or text.
    """
    found: list[Any] = []
    at_once = max(1, AT_ONCE // max(1, len(columns[0]))) if columns else 1
    for start in range(0, len(columns), at_once):
        found += _typed_together(pa, columns[start : start + at_once], missing, booleans)
    return found


def _typed_together(pa: Any, columns: Sequence[Any], missing: Sequence[str], booleans: bool) -> list[Any]:
    compute = require("pyarrow.compute", "data", "reading tables")
    rows = len(columns[0])
    chunks = (chunk for column in columns for chunk in column.iterchunks())
    pieces = (piece for chunk in chunks for piece in _pieces(chunk))
    text = pa.chunked_array([pa.concat_arrays(some) for some in _runs(pieces)], pa.string())
    trimmed = compute.utf8_trim_whitespace(text)
    blank = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array(missing))
    filled = compute.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    kinds = [pa.string()] * len(columns)
    dates = ((DATE, pa.timestamp("us")), (ZONED, pa.timestamp("us", "UTC")))
    for pattern, kind in (*dates, *[(BOOLEAN, pa.bool_())] * booleans, (NUMBER, pa.float64()), (INTEGER, pa.int64())):
        matches = compute.fill_null(compute.match_substring_regex(filled, pattern), True)
        fits = matches.to_numpy().reshape(len(columns), rows).all(axis=1)
        kinds = [kind if is_fit else before for is_fit, before in zip(fits.tolist(), kinds, strict=True)]
    padded = compute.fill_null(compute.match_substring_regex(filled, PADDED), False)
    is_code = padded.to_numpy().reshape(len(columns), rows).any(axis=1)
    kinds = [pa.string() if code else kind for code, kind in zip(is_code.tolist(), kinds, strict=True)]
    large = compute.fill_null(compute.match_substring_regex(filled, LARGE), False)
    for i in np.flatnonzero(large.to_numpy().reshape(len(columns), rows).any(axis=1)).tolist():
        if kinds[i] == pa.int64() and not _fit(pa, filled.slice(i * rows, rows)):
            kinds[i] = pa.float64()
    gap = pa.scalar(None, pa.string())
    found, start = list[Any](), 0
    for kind, run in groupby(kinds):
        count = len(list(run))
        here, each = trimmed.slice(start * rows, count * rows), filled.slice(start * rows, count * rows)
        if kind == pa.string():
            values = compute.if_else(compute.equal(here, ""), gap, here)
        elif pa.types.is_timestamp(kind):
            values = _dates(pa, each, kind)
        else:
            values = _without_plus(each).cast(kind)
        found += [values.slice(i * rows, rows) for i in range(count)]
        start += count
    return found


def _without_plus(text: Any) -> Any:
    return require("pyarrow.compute", "data", "reading tables").replace_substring_regex(text, r"^\+", "")


def _fit(pa: Any, text: Any) -> bool:
    """Return whether 64 bits hold whole numbers."""
    try:
        _without_plus(text).cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _pieces(chunk: Any) -> Iterator[Any]:
    """Yield a chunk in parts: arrow refuses a chunk whose result might have 2 GB or more, such as in lower case."""
    if chunk.nbytes > LARGEST and len(chunk) > 1:
        half = len(chunk) // 2
        yield from _pieces(chunk[:half])
        yield from _pieces(chunk[half:])
    else:
        yield chunk


def _runs(pieces: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield successive pieces that together are not too large: each call of arrow has a price for each chunk."""
    run, size = list[Any](), 0
    for piece in pieces:
        if run and size + piece.nbytes > LARGEST:
            yield run
            run, size = [], 0
        run.append(piece)
        size += piece.nbytes
    if run:
        yield run


def _dates(pa: Any, text: Any, kind: Any) -> Any:
    """Convert text to dates; it stays text where a day does not exist."""
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return text
