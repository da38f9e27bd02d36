"""The interface of readers, and the registry that finds the reader of a given spec."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torchlasso._core.registry import Registry
from torchlasso._core.specs import unknown
from torchlasso.data.joining import origin_of
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part
from torchlasso.data.stored.options import StreamOptions


@dataclass(frozen=True)
class Portion:
    """One split that can be read.

    Attributes:
        origin: its name in messages.
        read: a function that reads it into memory.
        size: a function that returns the bytes of memory which that takes, about; None where that is not known.
        stored: a function that makes a part whose rows stay on the disk; None where they cannot.
    """

    origin: str
    read: Callable[[], Part]
    size: Callable[[], int] | None = None
    stored: Callable[[StreamOptions], Part] | None = None


@dataclass(frozen=True)
class Source:
    """The splits of a spec, before they are read."""

    name: str
    train: Portion | None
    test: Portion | None = None
    validation: Portion | None = None

    def training(self, spec: str) -> Portion:
        """Return the training split.

        Raises:
            ValueError: there is none.
        """
        if self.train is None:
            raise ValueError(f"{spec}: no training part; one file must have 'train' in its name")
        return self.train


UNPACK, SAVE = "unpack it first", "save it as CSV or Parquet"
REMEDIES = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz", ".gz", ".bz2", ".xz", ".zst"), UNPACK),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".feather", ".arrow", ".h5", ".sav", ".dta", ".rds", ".rdata"), SAVE),
    ".json": "write an object in each line, FILE.jsonl",
    ".dat": "name it FILE.csv if it is text with a header",
    ".data": "name it FILE.csv if it is text with a header",
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".joblib"), f"it can run code when it is read; {SAVE}"),
}


class Reader(ABC):
    """One kind of data. A new one is a registered class in a file of ``torchlasso.data.readers``."""

    form: ClassVar[str]  # the form of its specs, for messages
    rank: ClassVar[int] = 1  # lower is tried first
    trains: ClassVar[bool] = True  # whether its rows may have labels

    @abstractmethod
    def accepts(self, spec: str) -> bool:
        """Return whether this reader reads ``spec``; decide by names, not by the content of files."""

    @abstractmethod
    def open(self, spec: str, columns: ColumnSelection) -> Source:
        """Return the splits that ``spec`` names."""


class FileReader(Reader):
    """A file of one split, known by its suffix."""

    suffix: ClassVar[str | tuple[str, ...]]

    def accepts(self, spec: str) -> bool:
        return spec.lower().endswith(self.suffix) and Path(spec).is_file()

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        return Source(Path(spec).name, self.portion([Path(spec)], columns))

    def portion(self, paths: Sequence[Path], columns: ColumnSelection) -> Portion:
        """Return the split that files are."""
        return Portion(
            origin_of([str(path) for path in paths]),
            lambda: self.read_all(paths, columns),
            **self.on_disk(paths, columns),
        )

    def on_disk(self, paths: Sequence[Path], columns: ColumnSelection) -> dict[str, Any]:
        """Return the functions of a :class:`Portion` that are of files which stay on the disk; none if they cannot."""
        return {}

    @abstractmethod
    def read_all(self, paths: Sequence[Path], columns: ColumnSelection) -> Part:
        """Read the rows of files, one after the other."""


_readers: Registry[str, Reader] = Registry("reader of")  # by the form of their specs
R = TypeVar("R", bound=type[Reader])


def register(reader: R) -> R:
    """Register a reader class, so that ``load`` finds it.

    Raises:
        ValueError: there is another reader for specs of the same form.
    """
    _readers.enter(reader.form, reader())
    return reader


def _by_rank() -> list[Reader]:
    return sorted(_readers.values(), key=lambda reader: reader.rank)


def reader_of(path: Path) -> Reader | None:
    """Find the reader that accepts a file, if any."""
    spec = str(path.absolute())  # absolute, so that no file name reads as hf:NAME or package.module:function
    return next((reader for reader in _by_rank() if reader.accepts(spec)), None)


def find_reader(spec: str) -> Reader:
    """Find the first reader that accepts ``spec``.

    Raises:
        FileNotFoundError: ``spec`` is a path that does not exist.
        ValueError: no reader accepts it.
    """
    forms = list(_readers)
    if not spec:  # pathlib would read it as the current folder
        raise unknown("dataset", spec, forms)
    for reader in _by_rank():
        if reader.accepts(spec):
            return reader
    path = Path(spec)
    if path.is_dir():
        raise ValueError(
            f"{spec}: a folder must hold files with 'train' and 'test' in their names, or images in one "
            f"folder per class; it holds {listed(sorted(item.name for item in path.iterdir()))}"
        )
    if path.exists():
        remedy = next((f"; {what}" for ending, what in REMEDIES.items() if spec.lower().endswith(ending)), "")
        raise ValueError(f"{spec}: cannot be read as data{remedy}; there are readers for {', '.join(sorted(forms))}")
    if path.suffix or os.sep in spec or "/" in spec:
        raise FileNotFoundError(f"{spec}: no such file or folder")
    raise unknown("dataset", spec, forms)
