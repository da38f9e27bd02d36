"""The figures of all epochs, or of all points of a path, as a table, ``metrics.csv``, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from torchlasso._core.files import write_text
from torchlasso.integrations.trackers.base import EpochFigures, Tracked, Tracker, register

TABLE = "metrics.csv"


@register("csv")
class CsvTable(Tracker):
    """A table with a row for each epoch and a column for each figure, written anew after every epoch."""

    def __init__(self, training: Tracked, epochs: Sequence[EpochFigures]) -> None:
        self.file, self.unit = training.folder / TABLE, training.unit
        self.rows = [dict(figures) for figures in epochs]
        self._write()

    def epoch(self, number: int, figures: EpochFigures) -> None:
        self.rows.append(dict(figures))
        self._write()

    def result(self, number: int, figures: EpochFigures) -> None:
        """Leave the table as it is: its rows are epochs, and the results are in ``summary.json``."""

    def close(self, *, failed: bool) -> None: ...

    def _write(self) -> None:
        columns = [self.unit, *dict.fromkeys(name for row in self.rows for name in row)]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({self.unit: number, **row} for number, row in enumerate(self.rows, start=1))
        write_text(self.file, text.getvalue())
