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
_shared: dict[Path, int] = {}  # those of shared locks, by file


def _let_go() -> None:
    """Close the locks in a new process, which would hold them after the end of the process that took them."""
    _shared.clear()
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)  # of os.open


def lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool | None:
    """Lock an open file; return False if another holder has it, and None if the file system has no locks.

    Any number of holders have a ``shared`` lock at once, and none has another one meanwhile.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
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
        if _is_open(path, descriptor):  # not removed by the previous holder of the lock
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


def share(path: Path) -> None:
    """Hold a shared lock on a file, which is created for it, until this process ends.

    Raises:
        OSError: the file cannot be created, or there is a link in its place.
    """
    while path not in _shared or not _is_open(path, _shared[path]):
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | NOT_THROUGH_LINKS, 0o666)
        lock(descriptor, wait=True, shared=True)
        if (before := _shared.get(path)) is not None:  # of a file that was removed
            _held.discard(before)
            os.close(before)
        _held.add(descriptor)
        _shared[path] = descriptor


def _is_open(path: Path, descriptor: int) -> bool:
    """Return whether a descriptor is of the file that has this path now."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False
