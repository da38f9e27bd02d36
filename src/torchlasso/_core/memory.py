"""The memory that is free, asked before much is allocated: Linux gives more than it has, and then kills the process.

And memory that was freed, given back to the system.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

GROUP = Path("/sys/fs/cgroup")  # where the limit of a container stands
ENDLESS = 1 << 62  # bytes, where nothing says how much is free


def need_memory(count: int, what: str) -> None:
    """Raise ``MemoryError`` if ``count`` bytes are more than are free; ``what`` needs them, in words.

    >>> need_memory(1 << 63, "data.npz")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    MemoryError: data.npz needs 8,589,934,592.0 GiB of memory, and ... GiB are free
    """
    free = available()
    if count > free:
        raise MemoryError(f"{what} needs {count / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free")


def trim() -> None:
    """Give memory back that was freed, where the C library keeps it for later (glibc does)."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection: many small objects are created that live, and each collection visits all objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def available() -> int:
    """Return the bytes that can be allocated within the limits of the machine, its container and the process."""
    return max(0, min(_limits(), default=ENDLESS))


def _limits() -> Iterator[int]:
    with suppress(OSError, StopIteration, ValueError):  # not Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, StopIteration, ValueError):  # no container, or one without a limit
        limit = int((GROUP / "memory.max").read_text())
        lines = (GROUP / "memory.stat").read_text().splitlines()
        yield limit - next(int(line.split()[1]) for line in lines if line.startswith("anon "))
    with suppress(OSError, ValueError):
        limit = -1 if resource is None else resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit >= 0:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")
