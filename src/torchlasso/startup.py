"""Ctrl-C during the import of the command line, which takes seconds: the process ends without a traceback.

A terminal sends Ctrl-C to child processes as well; they ignore it and leave it to their parent.

The package imports this module first. Programs that use the library are not affected; they handle Ctrl-C themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INTERRUPTED = 130  # the exit code of shells
MODULES = ("torchlasso", "torchlasso.cli.main")


def end_quietly() -> None:
    """Let Ctrl-C end the process at once, unless there is another handler already."""
    own = threading.current_thread() is threading.main_thread()
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again, Python's default."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def leaving_interrupts_here() -> Iterator[None]:
    """Block Ctrl-C for processes started in this context; in this process, it takes effect at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit the block
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(*_: Any) -> None:
    os._exit(INTERRUPTED)


def _is_command_line() -> bool:
    """Return whether this process is ``torchlasso`` or ``python -m torchlasso``; ``sys.argv`` is not complete yet."""
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m" and "-m" in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] in MODULES
    return Path(program).stem == "torchlasso"


if _is_command_line():
    end_quietly()
