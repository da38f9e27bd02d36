"""The parts of a page, as HTML: what is text is escaped, what is said to be HTML is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from torchlasso.html.style import FIGURES, STYLE, TABLES

# The browser is told to fetch nothing: what the page needs is in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Bar:
    """A table cell that shows a fraction from 0 to 1 as a bar, and its text."""

    fraction: float
    text: str


def document(title: str, body: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: text, also the first heading.
        body: HTML.
        script: JavaScript, run at the end.
    """
    policy = f"{POLICY}; script-src 'unsafe-inline'" if script else POLICY
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{TABLES}{FIGURES}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n</main>{f'<script>{script}</script>' if script else ''}"
        "</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section of HTML parts under a heading; nothing, if the parts are empty."""
    body = "\n".join(filter(None, parts))
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text; ``kind``: ``lead`` for what matters most, ``note`` for what matters less."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Large numbers: the name of each, the number, and a note below it, which may be empty."""
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
    """A table of text cells and bars, the first of each row its heading.

    Args:
        head: the columns' headings.
        rows: a cell for each of them.
        label: what it is a table of, for who does not see it.
        marked: the rows that stand out.
        words: whether its cells are words and not numbers.
    """
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "\n".join(f"<tr{_class('marked' if i in marked else '')}>{_row(row)}</tr>" for i, row in enumerate(rows))
    above = f"<thead><tr>{heads}</tr></thead>\n" if any(head) else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table{_class('words' if words else '')}>{above}<tbody>\n{lines}\n</tbody></table></div>"
    )


def figure(drawing: str, caption: str = "") -> str:
    """A drawing, as HTML, with a caption of text."""
    return f"<figure>{drawing}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def grid(*parts: str) -> str:
    """HTML parts side by side, as many as there is room for."""
    return f'<div class="grid">{"".join(parts)}</div>' if any(parts) else ""


def _note(text: str) -> str:
    return f'<dd class="note">{escape(text)}</dd>' if text else ""


def beside(*parts: str) -> str:
    """HTML parts beside each other, each as wide as it is, below each other where there is no room."""
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
