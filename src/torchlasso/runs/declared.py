"""Options of commands that are declared as the fields of a dataclass, each with its help beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from torchlasso.runs.records import LARGEST

TRAIN, PATH, SELECT, SWEEP = "train", "path", "select", "sweep"
LIKE = {SWEEP: TRAIN}  # a command with the options of another one
NOTHING = "none"  # in the place of a list
QUOTES = ("'", '"')


@dataclass(frozen=True)
class Option:
    """A field of a dataclass as an option of a command.

    Attributes:
        help: the line in ``--help``.
        only: the only command that has the option; None for all commands.
        on_path: the option of ``torchlasso path``, if it differs.
        default: replaces the default of the field.
        by_recipe: whether the recipe chooses its value where none is given; the default of the field is that of the
            recipe ``proximal``.
    """

    help: str
    only: str | None = None
    on_path: Option | None = None
    default: Any = None
    by_recipe: bool = False


@cache
def options_of(cls: type, command: str) -> tuple[tuple[str, Any, Option], ...]:
    """Return the name, the type and the option of each field that a command has, in order."""
    hints, found = get_type_hints(cls, include_extras=True), []
    for each in fields(cls):
        kind, *extra = get_args(hints[each.name])
        option = next((one for one in extra if isinstance(one, Option)), None)
        if option is None or option.only not in (None, command, LIKE.get(command)):
            continue
        found.append((each.name, kind, (option.on_path or option) if command == PATH else option))
    return tuple(found)


def with_flags(text: str, names: Iterable[str]) -> str:
    """Name options in a message of the library, which names arguments of Python, as the command line does.

    Args:
        text: the message; arguments in quotes, in a call or after an option, such as --vary lr=1e-3, stay.
        names: of the options of the command, as in Python.

    Examples:
        >>> with_flags("leave it out with ignore=, or give task='classification'", ["ignore", "task"])
        'leave it out with --ignore, or give --task classification'
    """
    if not (either := "|".join(names)):
        return text
    argument = re.compile(rf"(?:(?<!\S)|(?<=\s\())({either})=('[^']*'|\"[^\"]*\"|[\w.%]*\w%?)?(?![\w=])")

    def flag(found: re.Match[str]) -> str:
        if re.search(r"--[\w-]+\s$", text[: found.start()]):
            return found[0]
        name, value = f"--{found[1].replace('_', '-')}", found[2]
        if value is None or value == "True":
            return name
        return f"{name} {shlex.quote(value[1:-1]) if value[0] in QUOTES else value}"

    return argument.sub(flag, text)


def refuse_large_numbers(options: Any) -> None:
    """Raise ``ValueError`` for whole numbers that are too large for the files of a run."""
    for each in fields(options):
        value = getattr(options, each.name)
        if type(value) is int and abs(value) > LARGEST:
            raise ValueError(f"--{each.name.replace('_', '-')} must be below 2^63; got {value}")
