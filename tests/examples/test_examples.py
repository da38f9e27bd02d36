"""The examples of loops run, with few steps, and all examples are short."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
LOOPS = ["own_loop", "lightning_digits", "trainer_text", "trainer_image", "pretrained_half_flops"]

pytestmark = [
    pytest.mark.slow,
    # few steps are too few for a target
    pytest.mark.filterwarnings("ignore::torchlasso.TargetMissed"),
    # Lightning's own code asks torch in a way that is deprecated, and it advises workers for a few rows in memory
    pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    # transformers asks for pinned memory without a GPU, too
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),
]


@pytest.mark.parametrize("name", LOOPS)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "EPOCHS", 1)
    monkeypatch.setattr(example, "ROWS", 160, raising=False)
    example.main()
    assert capsys.readouterr().out


def test_examples_are_short():
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in FOLDER.glob("*.py")}
    assert set(LOOPS) <= {Path(name).stem for name in lengths}
    assert {name: length for name, length in lengths.items() if length > 60} == {}
