"""Folders with train, validation and test files of one format."""

from __future__ import annotations

import re
from pathlib import Path

from torchlasso.data.joining import origin_of
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part, concatenate
from torchlasso.data.registry import FileReader, Portion, Reader, Source, reader_of, register

# in the order of Source; words that a file's name contains
_ROLES = {"train": "train", "test": "test|t10k", "validation": "valid|val(?![a-z])"}


@register
class Folder(Reader):
    """Files with 'train' and 'test' in their names; several files of one split are joined in order."""

    form = "FOLDER"

    def accepts(self, spec: str) -> bool:
        path = Path(spec)
        return path.is_dir() and any(_files(path).values())

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        path = Path(spec)
        files = _files(path)
        portions = (_portion(spec, files[role], columns) for role in _ROLES)
        return Source(path.resolve().name, *portions)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return the readable files of each split, in the order of their names."""
    found: dict[str, list[Path]] = {role: [] for role in _ROLES}
    for path in sorted(folder.iterdir()):
        role = role_of(path.name)
        unpacked = path.suffix == ".gz" and path.with_suffix("").is_file()  # the same rows, compressed
        reader = reader_of(path) if role is not None and path.is_file() and not unpacked else None
        if role is not None and reader is not None and reader.trains:
            found[role].append(path)
    return found


def role_of(name: str) -> str | None:
    """Return the split that a file name mentions, if only one; whole words take precedence over parts of words.

    >>> role_of("mnist-train.parquet"), role_of("latest-train.csv"), role_of("iris.csv")
    ('train', 'train', None)
    """
    for boundary in ("(?<![a-z])", ""):
        found = [role for role, words in _ROLES.items() if re.search(f"{boundary}({words})", name.lower())]
        if len(found) == 1:
            return found[0]
    return None


def _portion(spec: str, files: list[Path], columns: ColumnSelection) -> Portion | None:
    if not files:
        return None
    readers = [reader for path in files if (reader := reader_of(path))]
    if len(set(readers)) > 1:
        names = listed(path.name for path in files)
        raise ValueError(f"{spec}: one split in several formats ({names}); leave one format")
    reader = readers[0]
    if isinstance(reader, FileReader):
        return reader.portion(files, columns)
    origins = [str(path) for path in files]

    def read() -> Part:
        portions = [reader.open(file, columns).train for file in origins]
        return concatenate([portion.read() for portion in portions if portion], origins)

    return Portion(origin_of(origins), read)
