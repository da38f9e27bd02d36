"""The wording of the readers' errors: one line, with rows counted from 0 as in an array."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """The text of another library's error as one short line.

    >>> one_line(OSError("a\\n  b"))
    'a b'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, the first few of them.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return (", ".join(quoted[:most]) or "none") + more


def row(index: int) -> str:
    """A row for a message.

    >>> row(3)
    'row 3 (from 0)'
    """
    return f"row {index} (from 0)"
