"""Help, completion and the start of a command, which import no more than they need."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import torchlasso as tl
from torchlasso.cli import explaining
from torchlasso.cli.commands import COMMANDS, every_command, group_of

PROGRAM = """
import sys
sys.argv = ["torchlasso"]
from torchlasso.cli.main import main
try:
    main({arguments!r})
finally:
    print({module!r} in sys.modules)
"""


def ended(module: str, *arguments: str, **environment: str) -> tuple[str, bool]:
    """Return what the command line prints in a process of its own, and whether it imported a module."""
    # without arguments, as a program: they are those of sys.argv
    code = PROGRAM.format(module=module, arguments=arguments).replace("main(())", "main()")
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | environment)
    *printed, found = done.stdout.splitlines()
    return "\n".join(printed), found == "True"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "select"),
        (("--help",), "select"),
        (("train", "--help"), "--sparsity"),
        (("path", "--folds", "3", "--help"), "--points"),
        (("--version",), f"torchlasso {tl.__version__}"),
    ],
)
def test_help_needs_no_torch(arguments: tuple[str, ...], expected: str) -> None:
    printed, has_torch = ended("torch", *arguments)
    assert expected in printed
    assert not has_torch


@pytest.mark.slow
def test_completion_needs_no_torch() -> None:
    words = {"COMP_WORDS": "torchlasso train --spa", "COMP_CWORD": "2"}
    printed, has_torch = ended("torch", _TORCHLASSO_COMPLETE="complete_bash", **words)
    assert printed == "--sparsity"
    assert not has_torch


@pytest.mark.slow
def test_a_command_imports_no_other() -> None:
    printed, found = ended("torchlasso.cli.bench", "report", "nowhere")
    assert not found
    assert not printed


def test_the_description_is_that_of_the_commands() -> None:
    """Otherwise: python docs/make_commands.py"""
    commands = every_command()
    assert explaining.DESCRIPTION.read_text(encoding="utf-8") == explaining.describe(commands)
    known, described = group_of(commands).commands, group_of(explaining.read_description()).commands
    assert tuple(known) == tuple(described) == COMMANDS
    for name in COMMANDS:
        assert described[name].help == known[name].help
        assert [facts(each) for each in described[name].params] == [facts(each) for each in known[name].params]


def facts(parameter: Any) -> dict[str, Any]:
    found = {name: value for name, value in vars(parameter).items() if name != "type_descriptor"}
    return found | {"class": type(parameter), "kind": parameter.type_descriptor.annotation}


def test_help_as_a_value_is_none(cli: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be called --help."""
    monkeypatch.chdir(tmp_path)
    cli.assert_refused(cli("report", "--allow-code", "--help", "nowhere"), "--allow-code must name a function")


def test_every_public_name_is_found() -> None:
    for name in tl.__all__:
        assert getattr(tl, name) is not None, name
    assert {*tl.__all__} <= {*dir(tl)}
    with pytest.raises(AttributeError, match="module 'torchlasso' has no attribute 'L2'"):
        _ = tl.L2  # type: ignore[attr-defined]
