"""Answers to ``--help`` and to completion, from a description of all commands, without importing torch.

The description is ``commands.json``, which ``python docs/make_commands.py`` writes.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from torchlasso.cli.commands import COMMANDS, Command, group_of, help_of

DESCRIPTION = Path(__file__).with_name("commands.json")
KINDS = {str(kind): kind for kind in (bool | None, float | None, int | None, str | None, list[str] | None)}
KINDS |= {kind.__name__: kind for kind in (bool, float, int, str)}
COMPLETING = "_TORCHLASSO_COMPLETE"  # set by the shell, with the words so far in one of
WORDS = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
STARTED_BY_TORCHRUN = "RANK"  # then only one process prints


class _NotAnswered(Exception):  # noqa: N818  (not an error)
    """The arguments run a command."""


def answer(arguments: Sequence[str]) -> bool:
    """Answer a question about the commands.

    Args:
        arguments: of the command line.

    Returns:
        False if the arguments ask nothing, or have an error: they are then to be run.
    """
    asks = not arguments or arguments[0].startswith("-") or "--help" in arguments or COMPLETING in os.environ
    if not asks or STARTED_BY_TORCHRUN in os.environ:
        return False
    words = " ".join([*arguments, *(os.environ.get(name, "") for name in WORDS)])
    group = group_of(read_description([name for name in COMMANDS if name in words]))
    if COMPLETING in os.environ:
        _leave_values(group)
    try:
        if arguments and (command := group.commands.get(arguments[0])) and COMPLETING not in os.environ:
            # not through the group: to parse its options, typer imports pydantic
            command(list(arguments[1:]), prog_name=f"torchlasso {command.name}", standalone_mode=False)
        else:
            group(list(arguments) or ["--help"], standalone_mode=False)
    except (typer.TyperException, _NotAnswered):
        return False
    return True


def _leave_values(group: Any) -> None:
    """Let no value on the command line be converted: completion reads none, and typer imports pydantic for it."""
    for command in (group, *group.commands.values()):
        for parameter in command.get_params(typer.Context(command)):  # with --help
            parameter.process_value = lambda _context, value: value


def describe(commands: Mapping[str, Command]) -> str:
    """Describe commands as JSON, with a line for each parameter: the help and the parameters of each command."""
    parts = []
    for name, command in commands.items():
        lines = ",\n".join(_json(each) for each in _parameters(command))
        parts.append(f'{_json(name)}: {{"help": {_json(help_of(command))}, "parameters": [\n{lines}\n]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_description(explained: Collection[str] = COMMANDS) -> dict[str, Command]:
    """Return functions that stand for the commands, with their help, and run nothing.

    Args:
        explained: names of commands whose functions have the parameters as well.
    """
    found = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return {name: _stand_in(each, with_parameters=name in explained) for name, each in found.items()}


def _parameters(command: Command) -> list[dict[str, Any]]:
    parameters = []
    for each in inspect.signature(command, eval_str=True).parameters.values():
        if each.annotation is typer.Context:
            continue
        kind, info = each.annotation.__origin__, each.annotation.__metadata__[0]
        described = {
            "name": each.name,
            "is": type(info).__name__,
            "kind": kind.__name__ if isinstance(kind, type) and str(kind).startswith("<") else str(kind),
            # of an annotation, typer takes the first name for a default
            "names": [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)],
            "help": info.help,
        }
        if each.default is not inspect.Parameter.empty:
            described["default"] = each.default
        parameters.append(described)
    return parameters


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stand_in(described: Mapping[str, Any], *, with_parameters: bool) -> Command:
    def command(**_: Any) -> None:
        raise _NotAnswered

    parameters = []
    for each in described["parameters"] if with_parameters else ():
        make = typer.Option if each["is"] == "OptionInfo" else typer.Argument
        annotation: Any = Annotated[KINDS[each["kind"]], make(*each["names"], help=each["help"])]
        default = each.get("default", inspect.Parameter.empty)
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(each["name"], kind, default=default, annotation=annotation))
    command.__doc__ = described["help"]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command
