"""The configuration of the run."""

from __future__ import annotations

import shlex
from dataclasses import asdict, fields
from html import escape
from typing import Any

from torchlasso.html import section, table
from torchlasso.runs.extension import Extension
from torchlasso.runs.options import Options
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.path_options import PathOptions

HIDDEN = ("path", "extensions", "pretrained")  # options that have no flag


@section_at(110)
def configuration_section(run: Shown) -> str:
    """Show the command that repeats the run, and its options, except those that are empty."""
    options, inputs = run.experiment.options, run.experiment.inputs
    given = {name: value for name, value in asdict(options).items() if name not in HIDDEN}
    given |= {} if options.path is None else asdict(options.path)
    shape = "×".join(map(str, inputs.shape))
    rows = [[name.replace("_", "-"), text] for name, value in given.items() if (text := _text(value))]
    rows += [["more-epochs", f"{each.epochs}, after epoch {each.after}"] for each in options.extensions]
    rows += [["inputs", shape], ["outputs", f"{inputs.outputs:,}"]]
    rows += [["classes", _text(inputs.classes)]] if inputs.classes else []
    rows += [[f"version of {name}", version] for name, version in run.experiment.versions.items()]
    commands = [_command(options), *(_extending(run.folder.name, each) for each in options.extensions)]
    text = "<br>".join(f"<code>{escape(command)}</code>" for command in commands)
    return section("Configuration", f"<p>{text}</p>", table(("", ""), rows, "Options of the run", words=True))


def _command(options: Options) -> str:
    """Write the command with all options that differ from their defaults."""
    words = ["torchlasso", "train" if options.path is None else "path"]
    for part, ours in ((options, Options(data="")), (options.path, PathOptions())):
        for field in fields(part) if part is not None else ():
            value = getattr(part, field.name)
            if field.name not in HIDDEN and (
                value != getattr(ours, field.name) or field.name in ("data", "model", "epochs", "recipe")
            ):
                words += [f"--{field.name.replace('_', '-')}", *([] if value is True else [_text(value)])]
    return shlex.join(words)


def _extending(name: str, extension: Extension) -> str:
    return shlex.join(["torchlasso", "train", "--resume", "--out", name, "--more-epochs", str(extension.epochs)])


def _text(value: Any) -> str:
    if value is None or value == () or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)
