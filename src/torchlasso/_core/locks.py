"""Advisory locks on files: they end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)  # of os.open


def lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file; return False where another holder has it, None where the file system has no locks."""
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
    """Hold the lock of the file ``path``, which is made for it and removed at the end.

    A file that a killed process left is taken over. Where the file system has no locks, nothing is locked.

    Args:
        path: of the lock's own file.
        taken: the message of the error where another process holds the lock.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made, or a link lies there.

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
        with suppress(FileNotFoundError):  # removed by the one that held the lock until now
            if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
                break
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):  # the run is over, and a file that stays behind is taken over
            path.unlink()
        os.close(descriptor)
