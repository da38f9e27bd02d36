"""A run with ``--save-every`` resumes in the middle of an epoch, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

from torchlasso.runs.folder import RunFolder

# of 96 rows for training, minus those for validation: 6 steps an epoch, of which 2, 4 and 6 are saved
OPTIONS = ("--save-every", "2", "--input-dropout", "0.3", "--sparsity", "0.5", "--keep-best", "error", "--hold", "0.3")


@pytest.mark.parametrize("at", [5, 7, 12, 13, 18])
def test_it_goes_on_within_an_epoch(
    cli: Any,
    classes: Path,
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    models: str,
    at: int,
) -> None:
    options = [*OPTIONS, "--model", f"{models}:noisy"]
    assert cli.train(classes, tmp_path / "whole", *options).code == 0
    stop(LambdaLR, "step", "before", at)  # called twice before the first step
    assert cli.train(classes, tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    state = RunFolder(tmp_path / "run").read_checkpoint()
    done = at - 3  # steps
    assert state is not None
    assert state["epoch"] * 6 + state["batch"] == done - done % 2
    assert cli.resume(tmp_path / "run", "--allow-code", f"{models}:noisy").code == 0
    left, right = (cli.contents(tmp_path / name)["model.safetensors"] for name in ("run", "whole"))
    assert left == right
    assert cli.metrics(tmp_path / "run", timed=False) == cli.metrics(tmp_path / "whole", timed=False)


def test_states_within_an_epoch_change_nothing_without_random_numbers(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "whole").code == 0
    assert cli.train(classes, tmp_path / "run", "--save-every", "2").code == 0
    left, right = (cli.contents(tmp_path / name)["model.safetensors"] for name in ("run", "whole"))
    assert left == right


def test_no_steps_are_refused(cli: Any, classes: Path, tmp_path: Path) -> None:
    cli.assert_refused(cli.train(classes, tmp_path / "run", "--save-every", "0"), "--save-every", "at least 1")
    assert not (tmp_path / "run").exists()
