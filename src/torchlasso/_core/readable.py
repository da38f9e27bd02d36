"""Numbers and tables of text, for people to read."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percent(fraction: float) -> str:
    """Format a fraction as a percentage; 100.0 % only for exactly 1.

    >>> percent(0.9271), percent(0.99999)
    ('92.7 %', '99.9 %')
    """
    return f"{math.floor(fraction * 1000) / 10 if fraction > 0.999 else 100 * fraction:.1f} %"


def byte_size(count: int) -> str:
    """Format a number of bytes for people.

    >>> byte_size(512), byte_size(999_999), byte_size(1_066_440)
    ('512 B', '1 MB', '1.07 MB')
    """
    return f"{short(count)}B"


def short(count: float) -> str:
    """Format a large number for people, with room for a unit after it.

    >>> short(512), short(999_999), short(1_066_440)
    ('512 ', '1 M', '1.07 M')
    """
    for unit, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * scale:  # what rounds to it
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} "


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Format rows of cells as lines of text; the first ``left`` columns are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in cells]
