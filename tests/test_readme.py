"""What README.md shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from torchlasso.cli.main import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_example_prints_what_it_says():
    code, printed = re.findall(r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", TEXT, flags=re.DOTALL)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_the_rules_that_it_shows_select():
    (code,) = re.findall(r"```python\n(groups = .*?)```", TEXT, flags=re.DOTALL)
    from torch import nn

    import torchlasso as tl

    model = nn.ModuleDict(
        {"features": nn.Sequential(nn.Conv2d(1, 4, 3)), "body": nn.Linear(4, 4), "head": nn.Linear(4, 2)}
    )
    space = {"tl": tl, "nn": nn, "model": model}
    exec(code, space)
    assert [(len(g["params"]), g["lam"]) for g in space["groups"]] == [(1, 5e-5), (1, 1e-4), (4, 0.0)]


def test_the_commands_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for command in re.findall(r"^torchlasso (\w+)", TEXT, flags=re.MULTILINE):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
