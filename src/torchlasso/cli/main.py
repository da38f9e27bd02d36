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
    no_args_is_help=True,
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
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        code = _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        code = 130
        _say(_interrupted(arguments))
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
    _say(f"error: {' '.join(message.split())}")
    return 2


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _interrupted(arguments: Sequence[str]) -> str:
    if arguments[:1] == ["train"] and "--out" in arguments[:-1]:
        out = arguments[arguments.index("--out") + 1]
        return f"interrupted; go on with: torchlasso train --resume --out {out}"
    return "interrupted"


if __name__ == "__main__":
    main()
