"""Self-contained HTML pages: a document, tables with bars, figures and pictures, with nothing fetched from anywhere."""

from torchlasso.page.document import Bar, beside, document, figure, grid, paragraph, section, table, tiles
from torchlasso.page.pictures import picture
from torchlasso.page.style import PALETTE, variable

__all__ = [
    "PALETTE",
    "Bar",
    "beside",
    "document",
    "figure",
    "grid",
    "paragraph",
    "picture",
    "section",
    "table",
    "tiles",
    "variable",
]
