"""Folders of images: one folder per class, or just images for prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from torchlasso.data.image_decoding import SUFFIXES
from torchlasso.data.image_part import image_part
from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Labels, Part
from torchlasso.data.registry import Portion, Reader, Source, register
from torchlasso.data.roles import Roles
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.stored.parts import memory_of_images, stored_files_part

ROLES = (("train",), ("test",), ("val", "valid", "validation"))  # in the order of Source


@register
class ImageFolder(Reader):
    """``FOLDER/class/*.png``, or ``FOLDER/train/class/*.png``, with ``val`` and ``test`` beside ``train``."""

    form = "FOLDER of images"
    rank = 2  # after a folder with train and test files

    def accepts(self, spec: str) -> bool:
        path = Path(spec)
        return path.is_dir() and bool(_folders(path) or _images(path))

    def open(self, spec: str, columns: ColumnSelection) -> Source:
        columns.refuse(spec)
        root = Path(spec)
        folders = {folder.name: folder for folder in _folders(root)}
        if "train" in folders:
            found = (next((folders[name] for name in names if name in folders), None) for names in ROLES)
            return Source(root.resolve().name, *(_portion(path, columns) for path in found))
        return Source(root.resolve().name, _portion(root, columns))


def _folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith((".", "__")))


def _images(path: Path) -> list[Path]:
    """Return the image files of a folder, without hidden files."""
    files = (item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    return sorted(item for item in files if item.suffix.lower() in SUFFIXES)


def _portion(root: Path | None, columns: ColumnSelection) -> Portion | None:
    if root is None:
        return None

    def size() -> int:
        files, _ = _found(root, columns)
        return memory_of_images(len(files), files[0], columns)

    def stored(stream: StreamOptions) -> Part:
        files, y = _found(root, columns)
        return stored_files_part(files, columns, stream, y)

    return Portion(str(root), lambda: _read(root, columns), size, stored)


def _read(root: Path, columns: ColumnSelection) -> Part:
    files, y = _found(root, columns)
    return image_part(files, len(files), lambda index: str(files[index]), columns, Roles(y), tuple(map(str, files)))


def _found(root: Path, columns: ColumnSelection) -> tuple[list[Path], Labels | None]:
    """Return the image files, and the folder of each."""
    folders = _folders(root)
    if not folders and not columns.required:
        files, y = _images(root), None
    else:
        by_class = {folder.name: _images(folder) for folder in folders}
        empty = [name for name, files in by_class.items() if not files]
        if empty or not by_class:
            what = f"no images in the class folder {listed(empty)}" if empty else "no class folders"
            raise ValueError(f"{root}: {what}; each class is a folder with images ({', '.join(SUFFIXES)})")
        files = [file for group in by_class.values() for file in group]
        y = np.repeat(np.array(list(by_class)), [len(group) for group in by_class.values()])
    if not files:
        raise ValueError(f"{root}: no images ({', '.join(SUFFIXES)})")
    return files, y
