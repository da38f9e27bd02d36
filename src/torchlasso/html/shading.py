"""A matrix of counts as a table with shaded cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

STRONGEST = 55  # per cent of colour: text on it can still be read
SHORT, SMALL, TINY = 4, 13, 26  # longer headings are turned; from so many columns on, the cells are smaller


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], corner: str, label: str) -> str:
    """Make a square table of counts, shaded by their shares of the row: blue on the diagonal, else orange.

    Cells of 0 are empty. A small share is shaded more than in proportion, so that it can be seen.

    Args:
        names: of the rows and of the columns.
        counts: a row for each name.
        corner: the heading of the names.
        label: a description of the table, for screen readers.
    """
    is_tiny = len(names) >= TINY
    sizes = "matrix" + " small" * (SMALL <= len(names) < TINY) + " tiny" * is_tiny
    turned = ' class="turned"' if len(names) >= SMALL or max(map(len, names)) > SHORT else ""
    heads = "".join(f'<th scope="col"{turned}><span>{escape(name)}</span></th>' for name in names)
    rows = ("".join(_shaded(*cell, k == i, is_tiny) for i, cell in _shares(row)) for k, row in enumerate(counts))
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>' for name, cells in zip(names, rows, strict=True)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table class="{sizes}"><thead>'
        f'<tr><th scope="col">{escape(corner)}</th>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'
    )


def _shares(row: Sequence[int]) -> list[tuple[int, tuple[int, float]]]:
    total = max(1, sum(row))
    return [(i, (count, count / total)) for i, count in enumerate(row)]


def _shaded(count: int, share: float, on_diagonal: bool, is_tiny: bool) -> str:
    if not count:
        return "<td></td>"
    kind, text = "hit" if on_diagonal else "miss", f"{count:,}"
    if is_tiny and count >= 1000:  # there is room for three digits
        text = f"{count // 1000}k"
    return f'<td class="{kind}" style="--share: {STRONGEST * math.sqrt(share):.0f}%">{text}</td>'
