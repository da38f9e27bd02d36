"""Messages and tables of the command line: in its own terms, and whole."""

from __future__ import annotations

import io

import pytest

from torchlasso.cli.screen import PlainConsole, columns
from torchlasso.runs.declared import with_flags

NAMES = ["ignore", "task", "size", "skip_corrupt", "group", "stratify", "lr"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task='classification' is given.", "--task classification is given."),
        ("or numbers, by task='regression'", "or numbers, by --task regression"),
        ("give group='name:a (.+)' here", "give --group 'name:a (.+)' here"),
        ("with size=, such as size=224", "with --size, such as --size 224"),
        ("more than skip_corrupt=0.1", "more than --skip-corrupt 0.1"),
        ("of a column (ignore=, task=)", "of a column (--ignore, --task)"),
        ("stratify=True divides them", "--stratify divides them"),
        # texts of a person, other arguments, and calls
        ("--vary 'lr=a': 'a' is not a number", "--vary 'lr=a': 'a' is not a number"),
        ("give --vary, as in --vary lr=1e-3,3e-3", "give --vary, as in --vary lr=1e-3,3e-3"),
        ("runs/lr=3/a: no such file", "runs/lr=3/a: no such file"),
        ("use Units(size=3), or allow_empty=True", "use Units(size=3), or allow_empty=True"),
        ("size==3", "size==3"),
    ],
)
def test_arguments_of_python_become_options(text: str, expected: str) -> None:
    assert with_flags(text, NAMES) == expected
    assert with_flags(text, []) == text


@pytest.mark.parametrize("width", [1, 20, 200])
def test_a_table_keeps_all_its_figures_whatever_the_width(width: int) -> None:
    console = PlainConsole()
    console.file, console.width = io.StringIO(), width
    console.tabulate(columns(["", "test", "95 % interval"], [["balanced accuracy", "64.9 %", "60.6 to 69.1 %"]]))
    assert console.file.getvalue().splitlines() == [
        "                     test   95 % interval",
        "balanced accuracy  64.9 %  60.6 to 69.1 %",
    ]
