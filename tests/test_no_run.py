"""What a folder is that holds no finished run: a sweep, or a trial of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torchlasso.runs.folder import RunFolder


def sweep(folder: Path, state: str = "done", chosen: int | None = None) -> Path:
    (folder / "trials" / "0005").mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"trials": [{"number": 5, "state": state}], "chosen": chosen}))
    return folder


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("pruned", "pruned trial, .* --keep-all"),
        ("failed", "failed trial, .*sweep.json"),
        ("waiting", "not finished; .*torchlasso sweep --resume"),
        ("paused", "not finished; .*torchlasso sweep --resume"),
        ("done", "has no model.safetensors"),
    ],
)
def test_a_trial_without_a_model_is_named(tmp_path: Path, state: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RunFolder(sweep(tmp_path, state) / "trials" / "0005").read_model()


@pytest.mark.parametrize(("chosen", "words"), [(5, "holds a sweep: .*0005"), (None, "sweep that is not finished")])
def test_a_sweep_is_named(tmp_path: Path, chosen: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RunFolder(sweep(tmp_path, chosen=chosen)).read_experiment()


def test_any_other_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run: it has no config\.json"):
        RunFolder(tmp_path).read_experiment()
