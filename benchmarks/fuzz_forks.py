"""A separate process for a case of the fuzzer, with limits on memory and time, and its output."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEMORY = 3 << 30  # bytes that a case may allocate
SECONDS = 30  # of the processor that it may take
PATIENCE = 300  # seconds until it is stopped, whatever it does


@dataclass(frozen=True)
class Ended:
    """The end of a case: the exit code, None if it took too long, and the output."""

    code: int | None
    out: str
    err: str


def run_forked(action: Callable[[], None], folder: Path) -> Ended:
    """Run a function in a separate process, in a folder, with limits on memory and time."""
    outputs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
    child = os.fork()
    if not child:
        code = 70
        try:
            for descriptor, file in zip((1, 2), outputs, strict=True):
                os.dup2(file.fileno(), descriptor)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.chdir(folder)
            action()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + PATIENCE
    while not (waited := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.002)
    if not waited[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    texts = []
    for file in outputs:
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
        file.close()
    code = os.waitstatus_to_exitcode(waited[1]) if waited[0] else None
    return Ended(None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code, *texts)
