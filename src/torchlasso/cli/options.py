"""The options of the commands: the options that :mod:`torchlasso.runs.options` declares, and a few common ones."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

import typer

from torchlasso._core.functions import is_function_name
from torchlasso.runs.declared import options_of
from torchlasso.runs.folder import RunFolder

Out = Annotated[str, typer.Option(help="Folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with code 3 if there are warnings, as of a missed target or a model that is no result."
    ),
]
AllowCode = Annotated[
    list[str] | None,
    typer.Option(help="Allow a function (module:function) that a file of the run names; can be repeated."),
]
MoreEpochs = Annotated[
    int | None, typer.Option(help="With --resume, train a finished run on, for so many epochs more.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON at the end, and everything else to standard error.")
]


def takes(*classes: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for each field of these dataclasses, after ``--out``.

    The command gets the values as keyword arguments, as typer reads them; :func:`parsed` converts them to fields.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        place = 1 + [each.name for each in own].index("out")
        declared = [each for cls in classes for each in _parameters(cls, command.__name__)]
        # keyword only: parameters with defaults may then stand before others
        every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own[:place], *declared, *own[place:])]
        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in every}
        return command

    return decorate


def _parameters(cls: type, command: str) -> Iterator[inspect.Parameter]:
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for name, kind, option in options_of(cls, command):
        default: Any = defaults[name] if option.default is None else option.default
        if default is dataclasses.MISSING or option.by_recipe:  # a resumed run has a value already, a recipe has one
            kind, default = kind | None, None
        if get_origin(kind) is tuple:
            kind, default = str, ",".join(default)
        if {float, str} <= {*get_args(kind)}:  # typer has no such type
            kind = str | None
        names = [f"--{name.replace('_', '-')}"]  # without a --no- form
        annotation: Any = Annotated[kind, typer.Option(*names, help=option.help)]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parsed(cls: type, command: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values that typer read to the types of a dataclass's fields: lists with commas become tuples.

    Raises:
        ValueError: an item of a list does not have the field's type.
    """
    found = {}
    for name, kind, _ in options_of(cls, command):
        value = values[name]
        if {float, str} <= {*get_args(kind)}:
            value = _number_or_text(value)
        if get_origin(kind) is tuple:
            item, _ = get_args(kind)
            try:
                value = tuple(map(item, split_list(value)))
            except ValueError as error:
                flag = f"--{name.replace('_', '-')}"
                example = "64,32" if item is int else "1e-6,1e-3"
                raise ValueError(f"{flag} takes numbers separated by commas, as in {example}; got {value!r}") from error
        found[name] = value
    return found


def _number_or_text(value: str | None) -> float | str | None:
    """Return a text as a number if it is one; a share may be in per cent, below 100 %."""
    if value is None:
        return None
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        return value
    if not value.endswith("%"):
        return number
    return number / 100 if number < 100 else value


def split_list(text: str) -> tuple[str, ...]:
    """Split a text at its commas."""
    return tuple(filter(None, (item.strip() for item in text.split(","))))


def allowed(*given: str | None, by: list[str] | None) -> frozenset[str]:
    """Return the functions that the user named on the command line, with ``--allow-code`` or as an option's value.

    Raises:
        ValueError: ``--allow-code`` is not the name of a function.
    """
    for name in by or []:
        if not is_function_name(name):
            raise ValueError(f"--allow-code must name a function, package.module:function; got {name!r}")
    return frozenset(name for name in (*given, *(by or [])) if name is not None and is_function_name(name))


def folder_of(out: str, given: Mapping[str, Any], by: list[str] | None) -> RunFolder:
    """Return the folder of a training, whose files may name the functions that the command line names.

    Raises:
        ValueError: ``--out`` is empty, or see :func:`allowed`.
    """
    if not out:
        raise ValueError("--out must name a folder; got an empty text")
    return RunFolder(out, allowed(given["data"], given["model"], given["loss"], *given["augment"], by=by))
