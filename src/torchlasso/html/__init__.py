"""Self-contained HTML pages: documents, tables with bars, figures and images. They fetch nothing."""

from torchlasso.html.pages import Bar, beside, document, figure, grid, paragraph, section, table, tiles
from torchlasso.html.png import picture
from torchlasso.html.shading import matrix
from torchlasso.html.style import PALETTE, variable

__all__ = [
    "PALETTE",
    "Bar",
    "beside",
    "document",
    "figure",
    "grid",
    "matrix",
    "paragraph",
    "picture",
    "section",
    "table",
    "tiles",
    "variable",
]
