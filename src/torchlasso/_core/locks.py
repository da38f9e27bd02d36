"""Advisory locks on files; they end with the process that holds them, even if it is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()  # the descriptors of locks; a process that is forked from this one lets go of them


def _let_go() -> None:
    """Close the locks in a new process, which would hold them after the end of the process that took them."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)  # of os.open


def lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file; return False if another holder has it, and None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def held(path: str | Path, taken: str) -> Iterator[None]:
    """Hold a lock on the file ``path``, which is created for it and removed at the end.

    A file left by a killed process is reused. If the file system has no locks, nothing is locked.

    Args:
        path: the path of the lock file.
        taken: the error message if another process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file cannot be created, or there is a link in its place.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "lock"
        >>> with held(file, "in use"), held(file, "in use"):
        ...     pass
        Traceback (most recent call last):
        BlockingIOError: in use
    """
    path = Path(path)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NOT_THROUGH_LINKS, 0o666)
        if lock(descriptor) is False:
            os.close(descriptor)
            raise BlockingIOError(taken)
        with suppress(FileNotFoundError):  # removed by the previous holder of the lock
            if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
                break
        os.close(descriptor)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a process that was forked from the one that took the lock
            _held.remove(descriptor)
            with suppress(OSError):  # the run is over, and a remaining file is reused
                path.unlink()
            os.close(descriptor)
