"""The entry point: questions about the commands are answered at once, and commands are run."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module

from torchlasso import startup
from torchlasso.cli.explaining import answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 with one line on an error, 130 when interrupted.

    With ``TORCHLASSO_TRACEBACK=1`` in the environment, an error shows its traceback. Of several processes started by
    torchrun, only the first one prints, and only the first one that fails prints its error.
    """
    program = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _escape_what_cannot_be_encoded()
        if answer(arguments):
            sys.exit(0)
        run = import_module("torchlasso.cli.running").run  # torch is imported by now, which takes seconds
        startup.raise_again()
        code = run(arguments)
    except KeyboardInterrupt:
        code = startup.INTERRUPTED
    finally:
        if program:
            startup.end_quietly()
    sys.exit(code or 0)


def _escape_what_cannot_be_encoded() -> None:
    """Escape names that are not UTF-8 and symbols that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
