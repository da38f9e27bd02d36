"""Removal of files of the cache that have not been used for long, and never of one that a process uses.

The last use of a file is the time of a second one beside it, on which each process that uses the file has a shared
lock. The file itself is not touched, since its times are a part of the keys of what is made of it.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

from torchlasso._core.locks import NOT_THROUGH_LINKS, lock, share

VARIABLE = "TORCHLASSO_CACHE_DAYS"
DAYS = 30.0  # without a use, after which a file is removed
USED = ".used"
NAMES = re.compile(r"([0-9a-f]{32}\.(?:arrow|parquet|json))(?:\.used)?")  # of files of the cache, and beside them
DAY = 24 * 60 * 60


def use(path: Path) -> None:
    """Record that a file of the cache is used now, and by this process until it ends; it need not be there yet."""
    with suppress(OSError):  # a folder that this user cannot write to, from which nothing is removed either
        share(_beside(path))
        os.utime(_beside(path))


def forget(path: Path) -> None:
    """Remove the record of a use of a file that could not be made."""
    with suppress(OSError):
        _beside(path).unlink()


def remove_unused(folder: Path) -> None:
    """Remove the files that have not been used for the days of ``TORCHLASSO_CACHE_DAYS``, or for 30.

    Raises:
        ValueError: the variable is not a number of days.
    """
    days = _days()
    for path, last in _files(folder):
        if time.time() - last > days * DAY:
            _remove(path)


def make_space(folder: Path, size: int) -> None:
    """Remove files that no process uses, the least recently used first, until a file of this size has space."""
    for path, _ in _files(folder):
        if shutil.disk_usage(folder).free >= size:
            return
        _remove(path)


def _days() -> float:
    given = os.environ.get(VARIABLE, "")
    try:
        days = float(given or DAYS)
    except ValueError:
        days = math.nan
    if not days >= 0:
        raise ValueError(f"{VARIABLE} must be a number of days, at least 0, or inf for no removal; got {given!r}")
    return days


def _files(folder: Path) -> list[tuple[Path, float]]:
    """Return the files of the cache with the time of their last use, the least recently used first."""
    found = {folder / match[1] for match in map(NAMES.fullmatch, os.listdir(folder)) if match}  # noqa: PTH208
    return sorted(((path, _last_use(path)) for path in found), key=lambda each: each[1])


def _last_use(path: Path) -> float:
    """Return the time of the last use; of a file of an earlier version, the one when it was made."""
    for each in (_beside(path), path):
        with suppress(OSError):
            return each.stat(follow_symlinks=False).st_mtime
    return math.inf  # removed by another process


def _remove(path: Path) -> None:
    """Remove a file of this user, unless a process uses it."""
    with suppress(OSError):  # removed already, a link, or of another user
        descriptor = os.open(_beside(path), os.O_RDONLY | os.O_CREAT | NOT_THROUGH_LINKS, 0o666)
        try:
            if lock(descriptor) and _is_own(path):
                path.unlink(missing_ok=True)
                _beside(path).unlink()
        finally:
            os.close(descriptor)


def _is_own(path: Path) -> bool:
    """Return whether there is a plain file of this user, or none."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


def _beside(path: Path) -> Path:
    return path.with_name(path.name + USED)
