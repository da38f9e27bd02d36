"""Parts of the readers' error messages: one line, with rows counted from 0 as in an array."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int = 12) -> str:
    """List the first few names for a message.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return (", ".join(quoted[:most]) or "none") + more


def row(index: int) -> str:
    """Name a row for a message.

    >>> row(3)
    'row 3 (from 0)'
    """
    return f"row {index} (from 0)"
