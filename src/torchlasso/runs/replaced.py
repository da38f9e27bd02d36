"""Files of an earlier run that a new one replaces: looked at before the first of them goes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


def refuse_others(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Refuse to replace what no run writes: a folder or a link where a run has a file, a link where it has a folder.

    Raises:
        ValueError: there is such a thing; the message names it.
        PermissionError: a file could not be removed.
    """
    for folder in folders:  # first, so that no link is followed in what comes next
        _need(folder, stat.S_ISDIR, "a folder")
    for file in files:
        if _need(file, stat.S_ISREG, "a file") and not os.access(file.parent, os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to replace files here", str(file.parent))


def remove(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Remove files, and the folders that are empty then, the inner ones first."""
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # not there, or something of the user's is in it
            folder.rmdir()


def _need(path: Path, right: Callable[[int], bool], kind: str) -> bool:
    """Return whether something is there; it has to be of the right kind."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    if not right(mode):
        found = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "something else"
        raise ValueError(f"{path} is {found}, and a run has {kind} there; nothing was replaced")
    return True
