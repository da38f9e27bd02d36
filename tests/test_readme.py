"""README.md's promises: its code runs as one script, its commands exist, its pictures are there."""

import re
from pathlib import Path

import pytest

from torchlasso.cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.timeout(240)
def test_the_code_runs_as_one_script_and_prints_the_shown_output(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (printed,) = re.findall(r"prints\n\n```\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(code) > 3
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(code), "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert capsys.readouterr().out == printed
    assert (tmp_path / "small.safetensors").exists()


def test_the_rules_that_it_shows_select():
    (code,) = re.findall(r"```python\n(model = nn.ModuleDict.*?)```", TEXT, flags=re.DOTALL)
    from torch import nn

    import torchlasso as tl

    space = {"tl": tl, "nn": nn}
    exec(code, space)
    assert [(len(g["params"]), g["lam"]) for g in space["groups"]] == [(1, 5e-5), (1, 1e-4), (4, 0.0)]


def test_the_commands_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+) +#", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    commands = set(re.findall(r"^torchlasso (\w+)", TEXT, flags=re.MULTILINE))
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0


def test_the_files_that_it_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
