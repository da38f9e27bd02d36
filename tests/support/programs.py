"""Programs in processes of their own, forked from one that has imported torchlasso, so that none waits for imports.

Each is what ``python -c code arguments`` is, with its own output, signals and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.pages import short_pages

COMMAND = "from torchlasso.cli.main import main; main()"
# the command line without warnings: Python warns of a file that is open when a program is interrupted
QUIET = f"import warnings; warnings.simplefilter('ignore'); {COMMAND}"
PATIENCE = 120  # seconds for a program to come to its end
_CONTEXT = multiprocessing.get_context("forkserver")
# with what a run imports as it goes: nearly all of the seconds that a small training takes as a program
_IMPORTS = ["torchlasso.cli.main", "torchlasso.cli.train", "torchlasso.cli.path", "tests.support.pages"]
_IMPORTS += ["torch.distributed.nn", "torch._dynamo", "torch._inductor.compile_fx", "torch._export"]
_IMPORTS += ["torch.export._trace", "pandas", "pyarrow.csv", "scipy.stats", "matplotlib.backends.backend_agg"]
_IMPORTS += ["torchlasso.estimators"]
_CONTEXT.set_forkserver_preload(_IMPORTS)


@dataclass(frozen=True)
class Ended:
    """The end of a command: its exit code and its output."""

    code: object
    out: str
    err: str


@dataclass
class Program:
    """A program that is running; ``with`` kills it at the end.

    Args:
        code: what it runs; by default the command line. Warnings are errors. Pages are short.
        environment: variables that differ from those of this process.
    """

    arguments: tuple[object, ...]
    code: str = COMMAND
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._outputs = tempfile.TemporaryDirectory()
        arguments = [str(each) for each in self.arguments]
        given = (self._outputs.name, arguments, self.code, dict(self.environment), Path.cwd())
        self._process = _CONTEXT.Process(target=_run, args=given)
        self._process.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self._process.join()
        self._outputs.cleanup()

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self._process.is_alive()

    @property
    def out(self) -> str:
        """Its output until now."""
        return self._text("out")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program and to the processes that it started, as a terminal does."""
        if self.is_running:
            with suppress(ProcessLookupError):  # it ends just now
                os.killpg(self.pid, number)

    def interrupt(self) -> None:
        """Press Ctrl-C until it ends: Python loses one that comes while an object is being deleted."""
        while self.is_running:
            self.send(signal.SIGINT)
            self._process.join(5)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds or the program has ended."""
        while self.is_running and not condition():
            time.sleep(0.002)

    def end(self, patience: float = PATIENCE) -> Ended:
        """Wait for the end; the exit code is negative after a signal."""
        self._process.join(patience)
        return Ended(self._process.exitcode, self._text("out"), self._text("err"))

    def _text(self, name: str) -> str:
        file = Path(self._outputs.name, name)
        return file.read_text("utf-8") if file.exists() else ""


def run(
    *arguments: object,
    code: str = COMMAND,
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Ended:
    """Run a program to its end, for as many seconds at most."""
    with Program(arguments, code, environment or {}) as program:
        return program.end(patience)


def _run(outputs: str, arguments: list[str], code: str, environment: Mapping[str, str], folder: Path) -> None:
    os.setsid()  # a group of its own, for signals
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(("out", "err"), start=1):
        with Path(outputs, name).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["torchlasso", *arguments]
    warnings.simplefilter("error")
    with short_pages():
        exec(compile(code, "program", "exec"), {"__name__": "__main__"})
