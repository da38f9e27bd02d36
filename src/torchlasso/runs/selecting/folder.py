"""The folder of a selection: the names of its files, and when it can take one."""

from __future__ import annotations

from pathlib import Path

from torchlasso.runs.files import RunFiles

RECORD, FEATURES, PAGE = "selection.json", "features.csv", "report.html"


def check_folder(path: Path, overwrite: bool) -> None:
    """Raise ``ValueError`` if the folder cannot take a selection.

    Args:
        path: the folder; it need not exist.
        overwrite: whether an earlier selection may be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; --out must name a folder")
    if RunFiles(path).config.exists():
        raise ValueError(f"{path} holds a run of torchlasso; give another --out")
    if (path / RECORD).exists() and not overwrite:
        raise ValueError(f"{path} already holds a selection; give --overwrite or another --out")
