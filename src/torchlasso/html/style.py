"""The style of pages: light and dark colours, and the style sheet."""

from __future__ import annotations

# For a light and for a dark background. "ink" and "soft" are for text: their contrast to "paper" is at least 4.5. The
# others are for lines and bars: their contrast is at least 3, and they differ without red and green, too.
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1c2024", "#e6e8ea"),
    "soft": ("#5f676d", "#a3a9ae"),
    "line": ("#dfe3e6", "#3a4045"),
    "paper": ("#ffffff", "#16191b"),
    "blue": ("#3565d6", "#7aa2ff"),
    "orange": ("#c8552f", "#f08a63"),
    "green": ("#3d8a4d", "#79c98a"),
    "purple": ("#8b5fbf", "#bb97ec"),
    "grey": ("#7c8287", "#a5abb1"),
}


def variable(name: str) -> str:
    """Return a colour's name in the style sheet.

    >>> variable("ink")
    'var(--ink)'
    """
    return f"var(--{name})"


def _variables(dark: bool) -> str:
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in PALETTE.items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(dark=False)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(dark=True)} }} }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 66rem; padding: 0 1rem; overflow-wrap: break-word; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.2rem; margin: 2.5rem 0 .5rem; }} h3 {{ font-size: 1rem; margin: 1.5rem 0 .25rem; }}
p {{ margin: .5rem 0; max-width: 46rem; text-wrap: pretty; }}
.warning {{ border-left: .3rem solid var(--orange); padding-left: .75rem; font-weight: 600; }}
.lead {{ font-size: 1.1rem; }} .note {{ color: var(--soft); }}
code {{ font-size: .9em; overflow-wrap: anywhere; }}
"""

TABLES = """
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { vertical-align: bottom; } tbody th { color: var(--ink); font-weight: 400; }
tbody th { position: sticky; left: 0; background: var(--paper); }
td, thead th:not(:first-child) { text-align: right; }
tr.marked > * { font-weight: 600; }
.words thead th:not(:first-child) { text-align: left; }
.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; } .words th { vertical-align: top; }
.bar { display: inline-block; width: 3.5rem; height: .7rem; background: var(--line); vertical-align: -.05rem;
       margin-right: .5rem; text-align: left; }
.bar i { display: block; height: 100%; background: var(--blue); }
.share { display: inline-block; min-width: 4.1em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tiles div { border-top: 2px solid var(--line); padding-top: .4rem; } .tiles dt { color: var(--soft); }
.tiles dd { margin: 0; } .tiles dd:nth-of-type(1) { font-size: 1.5rem; line-height: 1.3; }
.tiles .note { font-size: .88rem; }
"""

MATRICES = """
.matrix { border-collapse: separate; border-spacing: 1px; }
.matrix th, .matrix td { border: 0; padding: .2rem .35rem; }
.matrix td { min-width: 2.1rem; text-align: center; background: color-mix(in srgb, var(--line) 35%, transparent); }
.matrix thead th:first-child { white-space: normal; width: 6em; }
.matrix thead th:not(:first-child) { text-align: center; } .matrix tbody th { padding-right: .6rem; }
.matrix .hit { background: color-mix(in srgb, var(--blue) var(--share), transparent); }
.matrix .miss { background: color-mix(in srgb, var(--orange) var(--share), transparent); }
.matrix .turned span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 8rem; overflow: hidden;
                       text-overflow: ellipsis; }
.matrix tbody th { max-width: 10rem; overflow: hidden; text-overflow: ellipsis; }
.matrix.small { font-size: .8rem; } .matrix.small td { min-width: 1.9rem; padding: .15rem .2rem; }
.matrix.tiny { font-size: .62rem; } .matrix.tiny td { min-width: 1.05rem; height: 1.05rem; padding: 0; }
.matrix.tiny th { padding: 0 .35rem 0 0; } .matrix.tiny thead th:not(:first-child) { padding: 0 0 .2rem; }
"""

FIGURES = """
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .5rem 2rem; }
.beside { display: flex; flex-wrap: wrap; align-items: start; gap: .5rem 2rem; }
.beside > * { flex: 0 1 auto; min-width: 0; max-width: 100%; } .beside > :has(svg) { flex: 1 1 22rem; }
.beside figcaption { max-width: 32rem; }
figure { margin: 1rem 0; min-width: 0; } figcaption { color: var(--soft); font-size: .92rem; max-width: 46rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 32rem; }
svg * { stroke-linejoin: round; stroke-linecap: butt; } svg text { font-family: system-ui, sans-serif; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; margin: .5rem 0; }
input[type=range] { width: 100%; max-width: 36rem; height: 2rem; accent-color: var(--blue); }
label output { font-weight: 600; }
[hidden] { display: none !important; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { margin: 0; font-size: 10pt; max-width: none; } .screen { display: none; } .scroll { overflow: visible; }
  h2 { margin-top: 1.5rem; } h2, h3, .note { break-after: avoid; }
  .grid { grid-template-columns: 1fr 1fr; } .beside > :has(svg) { flex-basis: 16rem; }
  figure, tr, .tiles { break-inside: avoid; }
  table { font-size: 8pt; } th, td { padding-right: .7rem; white-space: normal; } tbody th { position: static; }
  .bar { width: 3rem; }
  .matrix th { white-space: nowrap; } .matrix.tiny { font-size: 4pt; table-layout: fixed; width: 100%; }
  .matrix.tiny thead th:first-child { width: 16em; } .matrix.tiny thead th:not(:first-child) { overflow: hidden; }
  .matrix.tiny td { min-width: 0; height: auto; } .matrix { border-spacing: .5px; }
  .matrix td { padding: .1rem .15rem; }
}
"""
