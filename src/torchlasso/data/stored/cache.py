"""Files that are made once from data, and kept for later runs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from torchlasso._core.extras import require
from torchlasso._core.files import read_json, replacing, sweep, write_json
from torchlasso._core.readable import byte_size
from torchlasso._core.text import first_line
from torchlasso.data.stored.unused import forget, make_space, remove_unused, use
from torchlasso.distributed.processes import is_first, wait

VARIABLE = "TORCHLASSO_CACHE"
VERSION = 1  # of the files; files of other versions are not read


def folder() -> Path:
    """Return the folder of the cache: ``TORCHLASSO_CACHE``, or ``torchlasso`` in the user's folder of caches."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torchlasso"


def key_of(*parts: Any) -> str:
    """Return the key of what is made of ``parts``, which JSON can hold.

    >>> key_of("a", 1) == key_of("a", 1), key_of("a", 1) == key_of("a", 2)
    (True, False)
    """
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:32]


def state_of(path: Path) -> list[Any]:
    """Return what changes when a file changes: its place, size and times, of which one cannot be set."""
    found = path.stat()
    return [str(path.absolute()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def kept_file(key: str, suffix: str, write: Callable[[BinaryIO], None], size: int, what: str) -> Path:
    """Return the file of a key; if there is none yet, the first process writes it, and the others wait.

    Args:
        key: see :func:`key_of`.
        suffix: of the file's name.
        write: a function that writes the file.
        size: the bytes that it will have, about.
        what: the data, for messages.

    Raises:
        OSError: it cannot be written, such as on a full disk; no part of it is left behind.
    """
    path = folder() / f"{key}{suffix}"
    if is_first():
        if not path.is_file():
            _make_folder(what)
        use(path)  # first, so that it is not removed once it was found
        if not path.is_file():
            try:
                remove_unused(folder())
                _need_space(size, what)
                with replacing(path) as file:
                    write(file)
            except BaseException:
                forget(path)
                raise
    wait()
    use(path)
    return path


def opened(path: Path) -> Any:
    """Map an Arrow file of the cache into memory.

    Raises:
        ValueError: it is damaged.
    """
    pa = require("pyarrow", "data", "reading data on the disk")
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: a damaged file of the cache ({first_line(error)}); delete it") from error


def kept_record(key: str, compute: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
    """Return the record of a key, computed by each process if there is none yet."""
    path = folder() / f"{key}.json"
    if is_first() and path.is_file():
        use(path)  # first, so that it is there for all processes, or for none
    wait()
    is_there = path.is_file()
    wait()
    if is_there:
        use(path)
        known: dict[str, Any] = read_json(path)
        return known
    found = compute()
    if is_first():
        _make_folder(what)
        remove_unused(folder())
        write_json(path, found)
        use(path)
    wait()
    return found


def _make_folder(what: str) -> None:
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            error.errno, f"{what}: no cache can be made ({error.strerror}); set {VARIABLE} to a folder", str(folder())
        ) from error


def _need_space(size: int, what: str) -> None:
    sweep(folder())  # parts of files that killed processes left behind take space
    make_space(folder(), size)
    free = shutil.disk_usage(folder()).free
    if size > free:
        needs = f"{what}: the cache needs {byte_size(size)}, and {byte_size(free)} are free"
        raise OSError(errno.ENOSPC, f"{needs}; set {VARIABLE} to a folder with more", str(folder()))
