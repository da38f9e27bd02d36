"""The parts of a page as HTML. Text is escaped; arguments documented as HTML are not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from torchlasso.html.style import FIGURES, MATRICES, STYLE, TABLES

# The browser must not fetch anything: the page is self-contained.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Bar:
    """A table cell that shows a fraction from 0 to 1 as a bar, and its text."""

    fraction: float
    text: str


def document(title: str, body: str, script: str = "") -> str:
    """Make a whole page.

    Args:
        title: the title as text, which is also the first heading.
        body: HTML.
        script: JavaScript that runs at the end.
    """
    policy = f"{POLICY}; script-src 'unsafe-inline'" if script else POLICY
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{TABLES}{MATRICES}{FIGURES}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n</main>{f'<script>{script}</script>' if script else ''}"
        "</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Make a section of HTML parts under a heading; it is empty if the parts are empty."""
    body = "\n".join(filter(None, parts))
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """Make a paragraph of text; ``kind``: ``lead`` for the most important text, ``note`` for less, ``warning``."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Make tiles with large numbers: the name, the number, and a note below it, which may be empty."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(number)}</dd>{_note(note)}</div>" for name, number, note in entries
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str | Bar]],
    label: str = "Table",
    *,
    marked: Collection[int] = (),
    words: bool = False,
) -> str:
    """Make a table of text cells and bars; the first cell of each row is its heading.

    Args:
        head: the headings of the columns.
        rows: rows with a cell for each column.
        label: a description of the table, for screen readers.
        marked: the highlighted rows.
        words: whether the cells are words instead of numbers.
    """
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "\n".join(f"<tr{_class('marked' if i in marked else '')}>{_row(row)}</tr>" for i, row in enumerate(rows))
    above = f"<thead><tr>{heads}</tr></thead>\n" if any(head) else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table{_class('words' if words else '')}>{above}<tbody>\n{lines}\n</tbody></table></div>"
    )


def figure(drawing: str, caption: str = "") -> str:
    """Make a figure from a drawing in HTML and a caption in text."""
    return f"<figure>{drawing}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def grid(*parts: str) -> str:
    """Arrange HTML parts in a grid, as many per row as fit."""
    return f'<div class="grid">{"".join(parts)}</div>' if any(parts) else ""


def _note(text: str) -> str:
    return f'<dd class="note">{escape(text)}</dd>' if text else ""


def beside(*parts: str) -> str:
    """Arrange HTML parts in a row at their own widths; they wrap if there is no room."""
    return f'<div class="beside">{"".join(parts)}</div>' if any(parts) else ""


def _row(cells: Sequence[str | Bar]) -> str:
    first, *others = map(_cell, cells)
    return f'<th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}'


def _cell(cell: str | Bar) -> str:
    if isinstance(cell, str):
        return escape(cell)
    bar = f'<span class="bar"><i style="width:{100 * cell.fraction:.2f}%"></i></span>'
    return f'{bar}<span class="share">{escape(cell.text)}</span>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
