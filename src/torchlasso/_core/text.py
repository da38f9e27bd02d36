"""Printable forms of text from files, which may contain terminal control sequences."""

from __future__ import annotations

import re

UNUSUAL = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    r"""Escape control characters, marks that change the direction of writing, and bytes that are not UTF-8.

    >>> printable("cat"), printable("\x1b[2Jcat\n"), printable("\udcff\u202e")
    ('cat', '\\x1b[2Jcat\\n', '\\udcff\\u202e')
    """
    return UNUSUAL.sub(lambda found: _escaped(found[0]), text)


def _escaped(c: str) -> str:
    return c if c.isprintable() else c.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    r"""Escape text, except for line breaks.

    >>> printable_lines("two\nlines\x07")
    'two\nlines\\x07'
    """
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str, most: int) -> str:
    """Put text on one line of at most ``most`` characters; a longer text loses its middle.

    >>> one_line("one\\n two", 20), one_line("a" * 9 + "b" * 9, 7)
    ('one two', 'aaa…bbb')
    """
    text = printable(" ".join(text.split()))
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an error's message, or the error's class if it has no message.

    >>> first_line(OSError("one\\n  two")), first_line(AssertionError())
    ('one', 'AssertionError')
    """
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return one_line(next(lines, type(error).__name__), most)
