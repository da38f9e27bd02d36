"""A file of texts, one in each line, for prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchlasso.data.labels import ColumnSelection
from torchlasso.data.records import Part, concatenate
from torchlasso.data.registry import FileReader, register
from torchlasso.data.texts import Texts, as_array


@register
class Lines(FileReader):
    """``FILE.txt``: a text without a label in each line."""

    form = "FILE.txt"
    trains = False
    suffix = ".txt"

    def read_all(self, paths: Sequence[Path], columns: ColumnSelection) -> Part:
        return concatenate([self._read(path, columns) for path in paths], [str(path) for path in paths])

    def _read(self, path: Path, columns: ColumnSelection) -> Part:
        if columns.required:
            raise ValueError(f"{path}: lines of text have no labels; training needs a table, such as a CSV file")
        try:
            content = path.read_text("utf8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text in UTF-8") from error
        if not content:
            raise ValueError(f"{path}: an empty file; a text in each line is needed")
        lines = content.removesuffix("\n").split("\n")
        return Part(Texts(as_array([line.strip() for line in lines])), None)
