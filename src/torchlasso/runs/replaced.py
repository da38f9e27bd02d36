"""Replace the files of an earlier run, after checking all of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


def refuse_others(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Refuse to replace anything that a run does not write, such as a folder or link in the place of a file.

    Raises:
        ValueError: there is such an entry; the message names it.
        PermissionError: a file could not be removed.
    """
    for folder in folders:  # first, so that the checks of files follow no link
        _need(folder, stat.S_ISDIR, "a folder")
    for file in files:
        if _need(file, stat.S_ISREG, "a file") and not os.access(file.parent, os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to replace files here", str(file.parent))


def remove(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Remove files, and then the empty folders, the inner ones first."""
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # it does not exist, or it holds files of the user
            folder.rmdir()


def _need(path: Path, right: Callable[[int], bool], kind: str) -> bool:
    """Return whether the path exists, and refuse it if it has the wrong kind."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    if not right(mode):
        found = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "something else"
        raise ValueError(f"{path} is {found}, but a run writes {kind} there; nothing was replaced")
    return True
