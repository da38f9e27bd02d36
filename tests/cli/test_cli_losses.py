"""The loss follows from the targets, or is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

LOSSES = """
from torch import nn


def whole(outputs, targets):
    return nn.functional.mse_loss(outputs, targets)


def half(outputs, targets):
    return nn.functional.mse_loss(outputs, targets) / 2


def smoothed(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.5)


def refusing(outputs, targets):
    assert outputs is None
"""


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "losses_of_ones_own.py").write_text(LOSSES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield "losses_of_ones_own"
    sys.modules.pop("losses_of_ones_own", None)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_named_loss_is_that_which_the_targets_call_for(
    cli: Any, classes: Path, amounts: Path, finished: Path, tmp_path: Path
) -> None:
    for name, data, loss in (("classes", classes, "cross-entropy"), ("amounts", amounts, "mse")):
        assert cli.train(data, tmp_path / name, "--loss", loss).code == 0
        assert weights(tmp_path / name) == weights(finished / name)


def test_a_loss_of_one_s_own_is_trained_with_and_resumed(
    cli: Any, classes: Path, amounts: Path, finished: Path, tmp_path: Path, losses: str
) -> None:
    assert cli.train(amounts, tmp_path / "half", "--loss", f"{losses}:half").code == 0
    assert cli.train(classes, tmp_path / "smoothed", "--loss", f"{losses}:smoothed").code == 0
    # half the loss at half the strength is the same problem, and Adam does not see its scale
    assert cli.train(amounts, tmp_path / "same", "--loss", f"{losses}:half", "--lam", "0.01").code == 0
    assert cli.train(amounts, tmp_path / "whole", "--loss", f"{losses}:whole").code == 0
    whole, same = (cli.summary(tmp_path / name) for name in ("whole", "same"))
    assert same["loss"] == pytest.approx(whole["loss"] / 2, rel=1e-2)
    assert cli.summary(tmp_path / "half")["loss"] != pytest.approx(whole["loss"] / 2, rel=1e-2)
    assert weights(tmp_path / "smoothed") != weights(finished / "classes")
    before = weights(tmp_path / "half")
    assert cli.resume(tmp_path / "half", "--allow-code", f"{losses}:half").code == 0
    assert weights(tmp_path / "half") == before


def test_an_error_without_a_message_is_named_by_its_class(cli: Any, amounts: Path, tmp_path: Path, losses: str) -> None:
    ended = cli.train(amounts, tmp_path / "run", "--loss", f"{losses}:refusing")
    cli.assert_refused(ended, "the first step fails", "AssertionError")
    assert not (tmp_path / "run").exists()
