"""The folder of a selection: the names of its files, when it can take one, and the options that it keeps."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from torchlasso._core.files import read_json, write_json
from torchlasso._core.functions import need_consent
from torchlasso.runs.files import SWEEP, RunFiles
from torchlasso.runs.records import parse_record
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import Selection

RECORD, FEATURES, PAGE = "selection.json", "features.csv", "report.html"
OPTIONS, PARTS = "options.json", "parts"  # its options, and the results so far, until it is finished


def check_folder(path: Path, overwrite: bool) -> None:
    """Raise ``ValueError`` if the folder cannot take a new selection.

    Args:
        path: the folder; it need not exist.
        overwrite: whether an earlier selection may be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; --out must name a folder")
    if RunFiles(path).config.exists():
        raise ValueError(f"{path} holds a run of torchlasso; give another --out")
    if (path / SWEEP).exists():
        raise ValueError(f"{path} holds a sweep; give another --out")
    if overwrite:
        return
    if (path / RECORD).exists():
        raise ValueError(f"{path} already holds a selection; give --overwrite or another --out")
    if is_begun(path):
        raise ValueError(f"{path} holds a selection that is not finished; give --resume, --overwrite or another --out")


def is_begun(path: Path) -> bool:
    """Return whether the folder holds a selection, finished or not, that can be resumed."""
    return (path / OPTIONS).is_file()


def begin(path: Path, options: SelectOptions) -> None:
    """Write the options of a new selection into its folder, and remove an earlier one."""
    for name in (RECORD, FEATURES, PAGE):
        (path / name).unlink(missing_ok=True)
    end(path)
    write_json(path / OPTIONS, asdict(options))


def end(path: Path) -> None:
    """Remove the results from which a selection was made."""
    if (path / PARTS).is_dir() and not (path / PARTS).is_symlink():
        shutil.rmtree(path / PARTS)


def read_options(path: Path, allowed: Collection[str]) -> SelectOptions:
    """Read the options of a selection that is resumed.

    Args:
        path: the folder.
        allowed: the functions that its options may name.

    Raises:
        ValueError: there is no selection in the folder, its options are damaged, or they name another function.
    """
    if not is_begun(path):
        raise ValueError(f"{path} holds no selection to resume: it has no {OPTIONS}")
    options = parse_record(SelectOptions, read_json(path / OPTIONS), str(path / OPTIONS))
    need_consent(path / OPTIONS, [options.data], allowed)
    return options


def read_selection(path: Path) -> Selection | None:
    """Read the record of a finished selection; None if it is not finished.

    Raises:
        ValueError: the record is damaged.
    """
    file = path / RECORD
    return parse_record(Selection, read_json(file), str(file)) if file.is_file() else None
