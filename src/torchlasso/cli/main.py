"""The entry point: the commands, and one line for an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from torchlasso.cli.predict import predict
from torchlasso.cli.report import report
from torchlasso.cli.train import train

app = typer.Typer(
    name="torchlasso",
    help="L1 regularization for PyTorch, done right: weights that are exactly zero.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (train, report, predict):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 with one line on bad input, 130 when interrupted.

    With ``TORCHLASSO_TRACEBACK=1`` in the environment an error shows where it came from.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        code = _fail(error.format_message())
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("TORCHLASSO_TRACEBACK") == "1":
            raise
        code = _fail(_what(error))
    sys.exit(code or 0)


def _what(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
