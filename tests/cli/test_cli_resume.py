"""A run that was stopped goes on as if nothing had happened: killed, interrupted, at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

import torchlasso.runs.train
from tests.support.command_line import OPTIONS
from tests.support.programs import QUIET, Program
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

LONG = ("--epochs", "12", "--compare", "dense,loss-term")
VARIANTS = ("", "dense/", "loss-term/")


def assert_same_run(cli: Any, resumed: Path, whole: Path) -> None:
    left, right = cli.contents(resumed), cli.contents(whole)
    assert set(left) == set(right)
    for variant in VARIANTS:
        if f"{variant}model.safetensors" in right:
            assert left[f"{variant}model.safetensors"] == right[f"{variant}model.safetensors"], variant
            assert cli.metrics(resumed / variant, timed=False) == cli.metrics(whole / variant, timed=False)
    assert cli.summary(resumed, timed=False) == cli.summary(whole, timed=False)


POINTS = [
    pytest.param(RunFolder, "write_checkpoint", "before", 2, id="an epoch is over, its checkpoint not written"),
    pytest.param(RunFolder, "write_checkpoint", "after", 2, id="checkpoint written, metrics perhaps not"),
    pytest.param(RunFolder, "write_metrics", "before", 2, id="metrics not written"),
    pytest.param(RunFolder, "write_metrics", "after", 2, id="metrics written"),
    pytest.param(RunFolder, "write_metrics", "before", 3, id="metrics of the last epoch not written"),
    pytest.param(RunFolder, "write_checkpoint", "after", 5, id="checkpoint of the comparison written"),
    pytest.param(RunFolder, "write_metrics", "before", 8, id="metrics of the second comparison not written"),
    pytest.param(LambdaLR, "step", "before", 3, id="in the first epoch"),
    pytest.param(LambdaLR, "step", "before", 12, id="in the second epoch"),
    pytest.param(LambdaLR, "step", "before", 28, id="in the comparison"),
    pytest.param(RunFolder, "write_model", "before", 1, id="no model yet"),
    pytest.param(RunFolder, "write_model", "after", 1, id="model written, comparison not begun"),
    pytest.param(RunFolder, "write_model", "before", 2, id="no model of the comparison"),
    pytest.param(RunFolder, "write_summary", "before", 1, id="no summary of the comparison"),
    pytest.param(RunFolder, "start", "before", 2, id="the comparison has no folder"),
    pytest.param(RunFolder, "start", "after", 2, id="the comparison has only its configuration"),
    pytest.param(torchlasso.runs.train, "write_page", "before", 1, id="no page"),
    pytest.param(RunFolder, "write_summary", "before", 3, id="no summary"),
    pytest.param(RunFolder, "write_summary", "after", 3, id="all written"),
    *(pytest.param(os, "fsync", "before", n, id=f"within file {n}") for n in (2, 3, 4, 5, 8, 9, 10, 14)),
]


@pytest.mark.parametrize(("owner", "name", "when", "call"), POINTS)
def test_an_interrupted_run_resumes(
    cli: Any,
    classes: Path,
    finished: Path,
    tmp_path: Path,
    stop: Callable[..., None],
    owner: Any,
    name: str,
    when: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    stop(owner, name, when, call)
    ended = cli.train(classes, run, "--compare", "dense,loss-term")
    monkeypatch.undo()
    assert ended.code == 130
    assert not [name for name in cli.contents(run) if name.endswith(".part")]
    ended = cli.resume(run)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(cli, run, finished / "classes")


def test_a_resumed_run_does_not_begin_again(
    cli: Any, classes: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(LambdaLR, "step", "before", 15)  # in the third epoch
    assert cli.train(classes, tmp_path / "run").code == 130
    monkeypatch.undo()
    ended = cli.resume(tmp_path / "run")
    assert "epoch 3/3" in ended.out
    assert "epoch 1/3" not in ended.out
    assert "epoch 2/3" not in ended.out


OPTIMIZERS = ("sgd:momentum=0.9", "sgd:momentum=0.9,nesterov=true", "adam", "adam:amsgrad=true", "adamw", "radam")
OPTIMIZERS += ("nadam", "adagrad", "rmsprop:momentum=0.5,centered=true", "adamax")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dropout_batch_norm_and_the_optimizer_resume(
    cli: Any,
    classes: Path,
    tmp_path: Path,
    models: str,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
) -> None:
    options = ["--model", f"{models}:noisy", "--optimizer", optimizer, "--lr", "0.01", "--schedule", "linear"]
    assert cli.train(classes, tmp_path / "whole", *options).code == 0
    stop(LambdaLR, "step", "before", 15)  # in the third epoch
    assert cli.train(classes, tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    assert [line["epoch"] for line in cli.metrics(tmp_path / "run")] == [1, 2]
    assert cli.resume(tmp_path / "run", "--allow-code", f"{models}:noisy").code == 0
    assert_same_run(cli, tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_can_be_resumed(cli: Any, copied: Callable[..., Path], finished: Path) -> None:
    run = copied()
    ended = cli.resume(run)
    assert ended.code == 0
    assert "epoch" not in ended.out
    assert_same_run(cli, run, finished / "classes")


def test_a_run_that_is_killed_repeatedly_resumes(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "whole", *LONG).code == 0
    run, rng = tmp_path / "run", random.Random(0)
    started = ["--data", classes, *OPTIONS, *LONG]
    killed = 0
    for target in (4, 15, 28):  # epochs, of 36: in the run, and in each of the comparisons
        with Program(("train", "--out", run, *(started if not run.exists() else ["--resume"]))) as program:
            program.wait_for(lambda: _epochs(run) >= target)  # noqa: B023
            time.sleep(rng.uniform(0, 0.03))
            program.send(signal.SIGKILL)
            ended = program.end()
        assert ended.code in (-signal.SIGKILL, 0), ended.err
        killed += ended.code == -signal.SIGKILL
    assert killed
    assert cli.resume(run).code == 0
    for part in run.rglob("*.part"):  # see test_no_part_stays_behind
        part.unlink()
    assert_same_run(cli, run, tmp_path / "whole")


def _epochs(run: Path) -> int:
    total = 0
    for variant in VARIANTS:
        with contextlib.suppress(FileNotFoundError):
            total += (run / variant / "metrics.jsonl").read_bytes().count(b"\n")
    return total


def test_no_part_stays_behind(
    cli: Any,
    classes: Path,
    tmp_path: Path,
    finished: Path,
    stop: Callable[..., None],
) -> None:
    """A kill leaves the file that was being written; resumed, the folder is as it should be."""
    run = tmp_path / "run"
    stop(RunFolder, "write_metrics", "after", 4)  # in the first comparison
    assert cli.train(classes, run, "--compare", "dense,loss-term").code == 130
    for file in ("config.json", "metrics.jsonl", "checkpoint/state.safetensors", "dense/metrics.jsonl"):
        left = (run / file).with_name(f".torchlasso-{file.encode().hex()[:16]:0<16}.part")
        left.write_text("the first half of")
    assert cli.resume(run).code == 0
    assert_same_run(cli, run, finished / "classes")


def test_control_c_prints_the_command_for_a_resume(cli: Any, classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train", "--data", classes, "--out", run, *OPTIONS, "--epochs", "2000")
    with Program(arguments, QUIET) as program:
        program.wait_for(lambda: _epochs(run) >= 2)
        program.interrupt()
        ended = program.end()
    assert (ended.code, ended.err) == (130, f"interrupted; resume with: torchlasso train --resume --out {run}\n")
    assert not [name for name in cli.contents(run) if name.endswith(".part")]


@pytest.mark.parametrize("form", ["--out={}", "--out {}"])
def test_both_ways_to_write_out_are_understood(
    cli: Any, classes: Path, tmp_path: Path, stop: Callable[..., None], form: str
) -> None:
    stop(RunFolder, "write_metrics", "before", 1)
    ended = cli("train", "--data", classes, *OPTIONS, *form.format(tmp_path / "run").split(" "))
    assert ended.code == 130
    assert f"--resume --out {tmp_path / 'run'}" in ended.err


CHANGES = [
    ("--lam", "0.5"),
    ("--lr", "1.0"),
    ("--epochs", "4"),
    ("--seed", "1"),
    ("--optimizer", "sgd"),
    ("--penalty", "mcp"),
    ("--model", "mlp:width=9,depth=1"),
    ("--data", "digits"),
    ("--compare", "dense"),
    ("--batch-size", "8"),
    ("--sparsity", "0.5"),
    ("--flops", "0.5"),
    ("--bytes", "0.25"),
    ("--reweight", "0.1"),
    ("--refit", "3"),
    ("--teacher", "dense"),
]


@pytest.mark.parametrize(("option", "value"), CHANGES)
def test_changed_options_are_refused(cli: Any, copied: Callable[..., Path], option: str, value: str) -> None:
    run = copied()
    before = cli.contents(run)
    ended = cli.resume(run, option, value)
    cli.assert_refused(ended, f"error: {option} ", value, "differs from the run's")
    assert cli.contents(run) == before


def test_the_same_options_are_not_refused(cli: Any, copied: Callable[..., Path], classes: Path) -> None:
    assert cli.train(classes, copied(), "--compare", "dense,loss-term", "--resume").code == 0


@pytest.mark.parametrize("exists", [True, False])
def test_where_there_is_no_run_there_is_nothing_to_resume(cli: Any, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "empty").mkdir()
    ended = cli.resume(tmp_path / "empty")
    assert ended.code == 2
    assert ended.err == f"error: {tmp_path / 'empty'} holds no run to resume\n"
    assert not exists or not list((tmp_path / "empty").iterdir())


def test_resume_with_data_starts_a_run_if_there_is_none(cli: Any, classes: Path, tmp_path: Path) -> None:
    """So that one command serves in a loop that starts it again until it ends."""
    assert cli.train(classes, tmp_path / "run", "--resume").code == 0
    assert (tmp_path / "run" / "summary.json").exists()
