"""Self-contained HTML pages: a document, tables with bars, and line charts, with nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #687076; --line: #dfe3e6; --paper: #fff; --accent: #3565d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9ba1a6; --line: #34393d; --paper: #16191b; --accent: #7aa2ff; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:not(:first-child), th:not(:first-child) { text-align: right; }
.bar { display: inline-block; width: 6rem; height: .7rem; background: var(--line); border-radius: 2px;
       vertical-align: -.05rem; margin-right: .5rem; text-align: left; }
.bar i { display: block; height: 100%; background: var(--accent); border-radius: 2px; }
.share { display: inline-block; width: 4.2em; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); }
svg { width: 100%; height: auto; max-width: 40rem; } svg text { fill: var(--soft); font-size: 11px; }
.axis { stroke: var(--line); } .series { fill: none; stroke: var(--accent); stroke-width: 2; }
@media print { body { margin: 0; } }
"""


@dataclass(frozen=True)
class Bar:
    """A table cell that shows a fraction from 0 to 1 as a bar, and its text."""

    fraction: float
    text: str


def document(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str | Bar]]) -> str:
    """A table of text cells and bars."""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def _cell(cell: str | Bar) -> str:
    if isinstance(cell, str):
        return escape(cell)
    bar = f'<span class="bar"><i style="width:{100 * cell.fraction:.2f}%"></i></span>'
    return f'{bar}<span class="share">{escape(cell.text)}</span>'


def line_chart(label: str, values: Sequence[float], low: float, high: float, unit: str = "") -> str:
    """A line through ``values`` at 1, 2, 3, …, on an axis from ``low`` to ``high``."""
    width, height, left, top, bottom = 640, 180, 48, 12, 24
    span, count = (high - low) or 1.0, max(len(values) - 1, 1)
    x = [left + (width - left - 8) * i / count for i in range(len(values))]
    y = [top + (height - top - bottom) * (1 - (value - low) / span) for value in values]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    ticks = "".join(
        f'<line class="axis" x1="{left}" x2="{width - 8}" y1="{b}" y2="{b}"/>'
        f'<text x="{left - 6}" y="{b + 4}" text-anchor="end">{value:.3g}{unit}</text>'
        for value, b in ((high, top), (low, height - bottom))
    )
    ends = (
        f'<text x="{left}" y="{height - 6}">1</text>'
        f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{len(values)}</text>'
    )
    description = escape(f"{label}: from {values[0]:.4g}{unit} to {values[-1]:.4g}{unit}")
    return (
        f'<figure><figcaption>{escape(label)}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{description}">{ticks}{ends}<polyline class="series" points="{points}"/></svg></figure>'
    )
