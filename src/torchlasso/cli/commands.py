"""The commands, each in a module of its own, which is imported when the command is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

import torchlasso

Command = Callable[..., Any]
COMMANDS = (  # in the order of --help
    "train",
    "path",
    "sweep",
    "select",
    "report",
    "compact",
    "export",
    "predict",
    "bench",
)


def command_named(name: str) -> Command:
    """Import a command."""
    found: Command = getattr(import_module(f"torchlasso.cli.{name}"), name)
    return found


def every_command() -> dict[str, Command]:
    """Import all commands."""
    return {name: command_named(name) for name in COMMANDS}


def group_of(commands: Mapping[str, Command]) -> Any:
    """Build the commands with their options, as the group that ``torchlasso`` is."""
    app = typer.Typer(name="torchlasso", rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback()(_options)
    for name, command in commands.items():
        app.command(name, help=help_of(command))(command)
    return typer.main.get_command(app)


def help_of(command: Command) -> str:
    """Return the docstring of a command with one line per paragraph: typer would keep the line breaks."""
    text = inspect.cleandoc(command.__doc__ or "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"torchlasso {torchlasso.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """L1 regularization for PyTorch, done right: weights that are exactly zero."""
