"""Help, completion and the start of a command, which import no more than they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
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
    print(*(name for name in {modules!r} if name in sys.modules))
"""
SLOW = ("torch", "rich", "pydantic")  # without which a question is answered in a fifth of a second
TRACING = ("sympy", "torch._dynamo", "torch._inductor")  # imported where a model's operators are followed


def ended(modules: tuple[str, ...], *arguments: str, **environment: str) -> tuple[str, set[str]]:
    """Return what the command line prints in a process of its own, and those of the modules that it imported."""
    # without arguments, as a program: they are those of sys.argv
    code = PROGRAM.format(modules=modules, arguments=arguments).replace("main(())", "main()")
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | environment)
    *printed, found = done.stdout.splitlines()
    return "\n".join(printed), set(found.split())


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
    printed, found = ended(SLOW, *arguments)
    assert expected in printed
    assert not found


@pytest.mark.slow
def test_completion_needs_no_torch() -> None:
    words = {"COMP_WORDS": "torchlasso train --spa", "COMP_CWORD": "2"}
    printed, found = ended(SLOW, _TORCHLASSO_COMPLETE="complete_bash", **words)
    assert printed == "--sparsity"
    assert not found


@pytest.mark.slow
def test_a_command_imports_no_other() -> None:
    printed, found = ended(("torchlasso.cli.bench",), "report", "nowhere")
    assert not found
    assert not printed


@pytest.mark.slow
@pytest.mark.usefixtures("whole_pages")
def test_a_report_follows_no_operators(cli: Any, classes: Path, tmp_path: Path) -> None:
    """The parameters with a penalty, and the features that are read, are in the summary."""
    run = tmp_path / "run"
    assert cli.train(classes, run, "--flops", "0.6", "--over", "units").code == 0
    printed, found = ended(TRACING, "report", str(run))
    assert not found
    assert printed
    summary = json.loads((run / "summary.json").read_text())
    assert summary.pop("penalised_names") == ["fc1.weight", "fc1.bias"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert ended(TRACING, "report", str(run)) == (printed, set(TRACING))  # of an earlier version


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_that_of_the_group(cli: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    found = cli(name, "--help").out
    group_of(every_command())([name, "--help"], prog_name="torchlasso", standalone_mode=False)
    assert found == capsys.readouterr().out
    assert f"Usage: torchlasso {name}" in found


def test_the_list_of_commands_cuts_no_sentence(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = cli("--help").out.split()
    for command in every_command().values():
        first = explaining.help_of(command).split("\n")[0].split()
        assert first in [words[at : at + len(first)] for at in range(len(words))]


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
