"""The options of how a step is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_they_change_the_training_and_a_resume_keeps_them(cli: Any, classes: Path, tmp_path: Path) -> None:
    options = ("--precision", "bf16", "--clip", "0.5", "--accumulate", "3")
    assert cli.train(classes, tmp_path / "run", *options).code == 0
    assert cli.train(classes, tmp_path / "plain").code == 0
    losses = [[line["loss"] for line in cli.metrics(tmp_path / name)] for name in ("run", "plain")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    before = cli.contents(tmp_path / "run")["model.safetensors"]
    assert cli("train", "--resume", "--out", tmp_path / "run").code == 0
    assert cli.contents(tmp_path / "run")["model.safetensors"] == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "fp8"), ("fp8", "bf16")),
        (("--clip", "0"), ("--clip", "above 0")),
        (("--accumulate", "0"), ("--accumulate", "at least 1")),
    ],
)
def test_values_that_are_refused(
    cli: Any, classes: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    cli.assert_refused(cli.train(classes, tmp_path / "run", *options), *words)
