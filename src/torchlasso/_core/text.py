"""Text of strangers as it can be shown: names out of files may hold what a terminal obeys."""

from __future__ import annotations

import re

UNUSUAL = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    r"""Escape what is not to be seen: control characters, marks that turn the writing around, bytes that are not UTF-8.

    >>> printable("cat"), printable("\x1b[2Jcat\n"), printable("\udcff\u202e")
    ('cat', '\\x1b[2Jcat\\n', '\\udcff\\u202e')
    """
    return UNUSUAL.sub(lambda found: _escaped(found[0]), text)


def _escaped(c: str) -> str:
    return c if c.isprintable() else c.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    r"""Escape lines of text, the ends of lines excepted.

    >>> printable_lines("two\nlines\x07")
    'two\nlines\\x07'
    """
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str, most: int) -> str:
    """Put text on one line of at most so many characters, without its middle where it is longer.

    >>> one_line("one\\n two", 20), one_line("a" * 9 + "b" * 9, 7)
    ('one two', 'aaa…bbb')
    """
    text = printable(" ".join(text.split()))
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an error's message, or the error's class where it has none.

    >>> first_line(OSError("one\\n  two")), first_line(AssertionError())
    ('one', 'AssertionError')
    """
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return one_line(next(lines, type(error).__name__), most)
