"""The commands, each in a module of its own, which is imported when the command is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

import torchlasso

Command = Callable[..., Any]
WIDEST = 120  # columns of a help text
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
    # without rich's panels and colours, which take longer than all the rest of --help
    app = typer.Typer(name="torchlasso", rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(context_settings={"max_content_width": WIDEST})(_options)
    for name, command in commands.items():
        text = help_of(command)
        app.command(name, help=text, short_help=text.partition("\n")[0])(command)
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
