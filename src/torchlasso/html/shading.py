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
    sizes = "matrix" + " small" * (SMALL <= len(names) < TINY) + " tiny" * (len(names) >= TINY)
    turned = ' class="turned"' if len(names) >= SMALL or max(map(len, names)) > SHORT else ""
    heads = "".join(f'<th scope="col"{turned}><span>{escape(name)}</span></th>' for name in names)
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_shaded(row, k == i) for i, row in _shares(counts[k]))}</tr>'
        for k, name in enumerate(names)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table class="{sizes}"><thead>'
        f'<tr><th scope="col">{escape(corner)}</th>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'
    )


def _shares(row: Sequence[int]) -> list[tuple[int, tuple[int, float]]]:
    total = max(1, sum(row))
    return [(i, (count, count / total)) for i, count in enumerate(row)]


def _shaded(cell: tuple[int, float], on_diagonal: bool) -> str:
    count, share = cell
    if not count:
        return "<td></td>"
    kind = "hit" if on_diagonal else "miss"
    return f'<td class="{kind}" style="--share: {STRONGEST * math.sqrt(share):.0f}%">{count:,}</td>'
