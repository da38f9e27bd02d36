"""The data card of a run."""

from __future__ import annotations

from torchlasso.data.card import DataCard
from torchlasso.html import paragraph, section, table
from torchlasso.runs.page.reading import joined_names
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown

CLASSES = 50  # the most classes with a row of their own


@section_at(75)
def data_section(run: Shown) -> str:
    """Show the data card of the run."""
    card = run.summary.data
    return "" if card is None else described(card)  # None of a run of an earlier version


def described(card: DataCard) -> str:
    """Show a data card as a section of a page."""
    parts = [paragraph(f"{card.name}: {card.inputs}; {card.targets}."), table(*_parts(card), words=True)]
    if 0 < len(card.parts[0].classes) <= CLASSES:
        parts.append(table(*_classes(card)))
    columns = (
        ("Gaps that were filled, with the training rows that have them", card.gaps),
        ("Columns with several inputs, with their number", card.encoded),
        ("Columns that are not read", card.left_out),
    )
    for what, named in columns:
        if named:
            parts.append(paragraph(f"{what}: {joined_names([f'{name} ({value})' for name, value in named.items()])}."))
    parts += [paragraph(note) for note in card.notes]
    return section("Data", *parts)


def _parts(card: DataCard) -> tuple[tuple[str, ...], list[list[str]], str]:
    rows = [[part.name, f"{part.rows:,}", part.origin] for part in card.parts]
    return ("part", "rows", "from"), rows, "Training, validation and test rows" if len(rows) > 1 else "Rows"


def _classes(card: DataCard) -> tuple[tuple[str, ...], list[list[str]], str]:
    names = list(card.parts[0].classes)
    rows = [[name, *(f"{part.classes[name]:,}" for part in card.parts)] for name in names]
    return ("class", *(part.name for part in card.parts)), rows, "Rows of each class"
