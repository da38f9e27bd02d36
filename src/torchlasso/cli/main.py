"""The entry point: the commands, and one line for an error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import torchlasso
from torchlasso import startup
from torchlasso._core.text import one_line
from torchlasso.cli.bench import bench
from torchlasso.cli.compact import compact
from torchlasso.cli.export import export
from torchlasso.cli.path import path
from torchlasso.cli.predict import predict
from torchlasso.cli.report import report
from torchlasso.cli.select import select
from torchlasso.cli.train import train
from torchlasso.distributed import processes

ALLOCATOR = "can't allocate memory"  # part of the RuntimeError of torch's CPU allocator
LONGEST = 399  # characters of an error, without the end of its line

app = typer.Typer(
    name="torchlasso",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"torchlasso {torchlasso.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """L1 regularization for PyTorch, done right: weights that are exactly zero."""


for command in (train, path, select, report, compact, export, predict, bench):
    # one line per paragraph: typer would keep the line breaks of the docstring
    app.command(help="\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n")))(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 with one line on an error, 130 when interrupted.

    With ``TORCHLASSO_TRACEBACK=1`` in the environment, an error shows its traceback. Of several processes started by
    torchrun, only the first one prints, and only the first one that fails prints its error.
    """
    startup.raise_again()
    program = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _escape_what_cannot_be_encoded()
        with processes.joined(), _shown_once():
            code = _run(arguments or ["--help"])
    except KeyboardInterrupt:
        code = startup.INTERRUPTED
    finally:
        if program:
            startup.end_quietly()
    sys.exit(code or 0)


@cache
def _commands() -> Any:
    """Build all commands with their options, once for a process that calls :func:`main` more than once."""
    return typer.main.get_command(app)


def _run(arguments: list[str]) -> int | None:
    try:
        return _commands()(arguments, standalone_mode=False)  # type: ignore[no-any-return]
    except typer.TyperException as error:
        return _fail(error.format_message())
    # any exception: mistakes in the user's files, options or models can raise all kinds, and each becomes one line
    except Exception as error:
        if os.environ.get("TORCHLASSO_TRACEBACK") == "1":
            raise
        return _fail(_what(error))


def _escape_what_cannot_be_encoded() -> None:
    """Escape names that are not UTF-8 and symbols that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _shown_once() -> Iterator[None]:
    if processes.is_first():
        yield
    else:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield


def _what(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or ALLOCATOR in str(error):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    if isinstance(error, ValueError | OSError | ArithmeticError) or processes.size() > 1:
        return str(error)
    return f"{type(error).__name__}: {error} (set TORCHLASSO_TRACEBACK=1 for the traceback)"


def _fail(message: str) -> int:
    if processes.is_first_to_fail():
        print(one_line(f"error: {message}", LONGEST), file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
