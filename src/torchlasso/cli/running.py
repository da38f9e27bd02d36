"""Running a command, with one line for an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import torch
import typer

from torchlasso._core.text import one_line
from torchlasso.cli.commands import COMMANDS, command_named, group_of
from torchlasso.cli.explaining import read_description
from torchlasso.distributed import processes
from torchlasso.runs.declared import with_flags

ALLOCATOR = "can't allocate memory"  # part of the RuntimeError of torch's CPU allocator
LONGEST = 399  # characters of an error, without the end of its line


def run(arguments: list[str]) -> int | None:
    """Run the command that the arguments name, and return its exit code."""
    name = next((each for each in arguments if each in COMMANDS), None)
    with processes.joined(), _shown_once():
        try:
            code: int | None = _group(name)(arguments, standalone_mode=False)
            return code
        except typer.TyperException as error:
            return _fail(error.format_message())
        # any exception: mistakes in the user's files, options or models can raise all kinds, and each becomes one line
        except Exception as error:
            if os.environ.get("TORCHLASSO_TRACEBACK") == "1":
                raise
            return _fail(with_flags(_what(error), _options_of(name)))


@cache
def _group(name: str | None) -> Any:
    """Build a command and stand-ins of the others, once for a process that calls it more than once."""
    commands = read_description(())
    return group_of(commands if name is None else commands | {name: command_named(name)})


def _options_of(name: str | None) -> list[str]:
    """Return the names of the options of a command, as in Python."""
    return [] if name is None else [each.name for each in _group(name).commands[name].params]


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
