"""Data cards: the rows that were read, how they were divided, and how they were prepared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartCard:
    """One part of the data.

    Attributes:
        name: train, validation or test.
        rows: their number.
        origin: the files or the rows that it is of, in words.
        classes: the number of rows of each class; empty for regression.
    """

    name: str
    rows: int
    origin: str
    classes: dict[str, int]


@dataclass(frozen=True)
class DataCard:
    """The card of the data of a run: the rows that were read, and their preparation.

    Attributes:
        name: of the data.
        inputs: the rows in words, such as "12 columns, 31 inputs".
        targets: the labels in words.
        parts: training, validation and test rows; validation only if there are any.
        gaps: the number of training rows without a value, by column; they are filled.
        encoded: the number of inputs of a column of categories or dates.
        left_out: the columns that are not read, and why.
        notes: what a person should know, a sentence each.
    """

    name: str
    inputs: str
    targets: str
    parts: tuple[PartCard, ...]
    gaps: dict[str, int]
    encoded: dict[str, int]
    left_out: dict[str, str]
    notes: tuple[str, ...]

    def lines(self, most: int = 8) -> list[str]:
        """Return the card as lines of text.

        Args:
            most: the most classes or columns that are named in a line.
        """
        found = [f"{self.name}: {self.inputs}; {self.targets}"]
        width = max(len(part.name) for part in self.parts)
        for part in self.parts:
            rows = f"{part.rows:,} row{'' if part.rows == 1 else 's'}"
            counts = [f"{name}: {count:,}" for name, count in part.classes.items()]
            shown = f" ({_some(counts, most)})" if counts else ""
            found.append(f"  {part.name:{width}}  {rows} of {part.origin}{shown}")
        columns = (
            ("filled gaps", [f"{name} {count:,}" for name, count in self.gaps.items()]),
            ("encoded", [f"{name} as {count}" for name, count in self.encoded.items()]),
            ("left out", [f"{name} ({why})" for name, why in self.left_out.items()]),
        )
        found += [f"  {what}: {_some(texts, most)}" for what, texts in columns if texts]
        return [*found, *(f"  {note}" for note in self.notes)]


def _some(texts: list[str], most: int) -> str:
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
