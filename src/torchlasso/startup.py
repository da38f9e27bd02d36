"""Ctrl-C while the command line is being imported, which takes seconds: the process ends without a traceback.

Processes that it starts leave Ctrl-C, which a terminal sends to them too, to the one that started them.

The package imports this module before all else. In a program of the user's nothing changes: there Ctrl-C is the
program's own affair.
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

INTERRUPTED = 130  # exit code, as shells have it
MODULES = ("torchlasso", "torchlasso.cli.main")


def end_quietly() -> None:
    """Let Ctrl-C end the process at once, unless it does something else already."""
    own = threading.current_thread() is threading.main_thread()
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again, as it does in Python."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def leaving_interrupts_here() -> Iterator[None]:
    """Let processes that are started meanwhile never see Ctrl-C; here it comes at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is blocked stays so in new processes
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(*_: Any) -> None:
    os._exit(INTERRUPTED)


def _is_command_line() -> bool:
    """Return whether this process is ``torchlasso`` or ``python -m torchlasso``; ``sys.argv`` does not tell yet."""
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m" and "-m" in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] in MODULES
    return Path(program).stem == "torchlasso"


if _is_command_line():
    end_quietly()
