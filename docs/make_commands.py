"""Write docs/commands.md, the reference of the commands, and the description of them that answers --help.

Run it after changing an option: python docs/make_commands.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchlasso.cli.commands import every_command, group_of
from torchlasso.cli.explaining import DESCRIPTION, describe

PAGE = Path(__file__).parent / "commands.md"
HEAD = """# Commands

Each command explains itself with `--help`. This page is generated from the commands by `python docs/make_commands.py`.
A command exits with 0 on success, with 2 and one line on bad input, and with 130 when it is interrupted.
"""


def reference() -> str:
    """Return the page as Markdown: a section for each command, with its arguments and options."""
    group = group_of(every_command())
    context = group.make_context("torchlasso", ["--help"], resilient_parsing=True)
    return "\n".join([HEAD, *(_section(name, command, context) for name, command in group.commands.items())])


def _section(name: str, command: Any, parent: Any) -> str:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    usage = " ".join([*(p.name.upper() for p in command.params if p.param_type_name == "argument"), "[OPTIONS]"])
    rows = [_row(parameter, context) for parameter in command.params if parameter.name != "help"]
    lines = [f"## {name}", "", *_paragraphs(command.help), "```text", f"torchlasso {name} {usage}", "```", ""]
    return "\n".join([*lines, "| | default | |", "|---|---|---|", *rows, ""])


def _paragraphs(text: str) -> list[str]:
    """The lines of a help text, with its example as code."""
    found = []
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.split())
        if line.startswith("Example: "):
            found += ["```text", line.removeprefix("Example: "), "```", ""]
        else:
            found += [line, ""]
    return found


def _row(parameter: Any, context: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names: list[str] = [parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    default = parameter.get_default(context)
    shown = "" if default is None or default is False or default == "" else f"`{default}`"
    text = (parameter.help or "").replace("|", r"\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {'required' if parameter.required else shown} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    DESCRIPTION.write_text(describe(every_command()), encoding="utf-8")
