"""A full disk, and a training that diverges: one line, and the earlier state stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.support import programs
from torchlasso.storage import checkpoint

pytestmark = pytest.mark.slow

FULL = """
import resource, signal, sys
from torchlasso.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[1:] = sys.argv[2:]
main()
"""


def assert_readable(run: Path) -> None:
    """Whatever files there are can be read."""
    assert not list(run.rglob("*.part"))
    for file in run.rglob("*.safetensors"):
        assert load_file(file)
    for file in run.rglob("*.json"):
        json.loads(file.read_text())
    for file in run.rglob("metrics.jsonl"):
        assert [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("limit", [10, 600, 1_500, 3_000])
def test_a_disk_that_is_full_from_the_start(cli: Any, classes: Path, tmp_path: Path, limit: int) -> None:
    """Too full for the configuration, for a checkpoint."""
    with cli.full_disk(limit):
        ended = cli.train(classes, tmp_path / "run")
    cli.assert_refused(ended, str(tmp_path / "run"))
    assert_readable(tmp_path / "run")


def test_a_disk_that_becomes_full_while_training(cli: Any, classes: Path, tmp_path: Path) -> None:
    """The metrics grow beyond what fits; nothing is lost, and with room the run goes on to the same weights."""
    options = ["--epochs", "40"]
    with cli.full_disk(5_500):
        ended = cli.train(classes, tmp_path / "run", *options)
    cli.assert_refused(ended, "metrics.jsonl")
    assert_readable(tmp_path / "run")
    assert 5 < len(cli.metrics(tmp_path / "run")) < 40
    assert cli.resume(tmp_path / "run").code == 0
    assert cli.train(classes, tmp_path / "whole", *options).code == 0
    left, right = cli.contents(tmp_path / "run"), cli.contents(tmp_path / "whole")
    assert left["model.safetensors"] == right["model.safetensors"]
    assert cli.metrics(tmp_path / "run", timed=False) == cli.metrics(tmp_path / "whole", timed=False)


def test_a_disk_that_is_full_on_resuming(cli: Any, stopped: Path) -> None:
    before = cli.contents(stopped)
    with cli.full_disk(2_000):
        ended = cli.resume(stopped)
    cli.assert_refused(ended, str(stopped))
    assert cli.contents(stopped)["checkpoint/state.safetensors"] == before["checkpoint/state.safetensors"]
    assert_readable(stopped)
    assert cli.resume(stopped).code == 0


def test_a_disk_too_full_for_the_model(cli: Any, finished: Path, copied: Callable[..., Path]) -> None:
    """The model that is there stays whole when a resumed run cannot write it anew."""
    run = copied()
    (run / "summary.json").unlink()
    before = cli.contents(run)
    with cli.full_disk(300):
        ended = cli.resume(run)
    cli.assert_refused(ended, "model.safetensors")
    assert cli.contents(run) == before


def test_a_disk_too_full_to_begin_leaves_the_run_that_was_to_be_replaced(
    cli: Any, copied: Callable[..., Path], classes: Path
) -> None:
    run = copied()
    before = cli.contents(run)
    with cli.full_disk(10):
        ended = cli.train(classes, run, "--overwrite")
    cli.assert_refused(ended, "config.json")
    assert cli.contents(run) == before


def test_a_full_disk_in_a_program(classes: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", classes, "--model", "mlp", "--epochs", "1", "--out", tmp_path / "run")
    done = programs.run(3000, *arguments, code=FULL)
    assert done.code == 2, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert_readable(tmp_path / "run")


def test_a_loss_that_becomes_nan_in_the_first_epoch(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run", "--optimizer", "sgd", "--lr", "1e30")
    cli.assert_refused(ended, "nan at step 2,", "epoch 1", "--lr")
    assert set(cli.contents(tmp_path / "run")) == {"config.json"}


def test_a_loss_that_becomes_nan_later_leaves_the_last_good_checkpoint(cli: Any, amounts: Path, tmp_path: Path) -> None:
    """A linear model at a rate at which the mean squared error grows step by step, until it overflows."""
    options = ["--model", "mlp:depth=0", "--optimizer", "sgd", "--lr", "30", "--schedule", "constant"]
    ended = cli.train(amounts, tmp_path / "run", *options, "--epochs", "50", "--lam", "1e-6")
    lines = cli.metrics(tmp_path / "run")
    good = len(lines)
    assert 0 < good < 50
    cli.assert_refused(
        ended, f"epoch {good + 1}", "at step ", str(tmp_path / "run" / "checkpoint" / "state.safetensors")
    )
    state = checkpoint.load_state(tmp_path / "run" / "checkpoint" / "state.safetensors")
    assert state["epoch"] == good
    assert all(w.isfinite().all() for w in state["model"].values())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    step = int(ended.err.split("at step ")[1].split(",")[0])
    steps = 6  # of an epoch: 96 training rows less 10 for validation, in batches of 16
    assert good * steps < step <= (good + 1) * steps


@pytest.mark.parametrize("validation", ["0", "0.1"])
@pytest.mark.parametrize("epochs", ["1", "3"])
def test_the_last_step_of_an_epoch_may_be_the_one_that_goes_wrong(
    cli: Any, amounts: Path, tmp_path: Path, validation: str, epochs: str
) -> None:
    """Its loss is fine, and the weights after it are not: neither a checkpoint nor a model is kept of these."""
    head, *lines = amounts.read_text().splitlines()
    large = [f"{row},{float(label) * 1000}" for row, _, label in (line.rpartition(",") for line in lines)]
    (tmp_path / "large.csv").write_text("\n".join([head, *large]))
    options = ["--model", "mlp:depth=0", "--optimizer", "sgd", "--lr", "3.4e38", "--batch-size", "1000"]
    options += ["--validation", validation, "--epochs", epochs, "--lam", "1e-38", "--schedule", "constant"]
    ended = cli.train(tmp_path / "large.csv", tmp_path / "run", *options)
    cli.assert_refused(ended, "loss", "--lr")
    for file in (tmp_path / "run").rglob("*.safetensors"):
        assert all(w.isfinite().all() for w in load_file(file).values()), file
    assert not (tmp_path / "run" / "summary.json").exists()
