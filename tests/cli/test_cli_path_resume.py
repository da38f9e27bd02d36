"""A path that was stopped goes on as if nothing had happened: interrupted at any moment, cut, on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

import torchlasso.runs.path
from tests.support.command_line import succeed
from tests.support.programs import QUIET, Program
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--validation", "0.25")
OPTIONS += ("--epochs", "6", "--collapse", "1")
EACH = ("--epochs-each", "3")
RUNS = {
    "by lam": (*EACH, "--lams", "0.005,0.1", "--points", "4", "--reweight", "0.1"),
    "by density": (*EACH, "--sparsest", "0.9", "--points", "3", "--lam", "1e-3"),
    "folds": (*EACH, "--lams", "0.005,0.1", "--points", "3", "--folds", "2", "--jobs", "1"),
    "cold": ("--lams", "0.005,0.1", "--points", "3", "--folds", "2", "--jobs", "1", "--start", "cold"),
}
RUNS["with a whole figure"] = RUNS["by lam"]


@pytest.fixture(scope="module")
def whole(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a path that nobody stopped, by its name; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("whole")

    def finished(name: str) -> Path:
        out = folder / name.replace(" ", "-")
        if not out.exists():
            succeed("path", "--data", classes, "--out", out, *OPTIONS, *RUNS[name])
        return out

    return finished


def untimed(file: bytes) -> list[str]:
    """Lines of JSON as they are, the seconds apart."""
    return [json.dumps({**json.loads(line), "seconds": 0}) for line in file.decode().splitlines()]


def assert_same_path(cli: Any, resumed: Path, whole: Path) -> None:
    left, right = cli.contents(resumed), cli.contents(whole)
    assert set(left) == set(right)
    for name in right:
        if name.endswith(".jsonl"):
            assert untimed(left[name]) == untimed(right[name]), name
        elif name not in ("summary.json", "report.html"):
            assert left[name] == right[name], name
    assert cli.summary(resumed, timed=False) == cli.summary(whole, timed=False)


MOMENTS = [
    pytest.param("by lam", LambdaLR, "step", "before", 3, id="in the dense training"),
    pytest.param("by lam", RunFolder, "write_weights", "before", 1, id="the dense model is not written"),
    pytest.param("by lam", RunFolder, "write_points", "before", 1, id="the dense model is written, its line is not"),
    pytest.param("by lam", RunFolder, "write_points", "after", 1, id="the dense point is written"),
    pytest.param("by lam", LambdaLR, "step", "before", 60, id="in the training of a point"),
    pytest.param("by lam", RunFolder, "write_weights", "after", 3, id="the weights of a point are written"),
    pytest.param("by lam", RunFolder, "write_points", "after", 3, id="a point is written"),
    pytest.param("by lam", RunFolder, "write_points", "after", 4, id="the last point is written"),
    pytest.param("by lam", RunFolder, "write_model", "before", 1, id="no model yet"),
    pytest.param("by lam", torchlasso.runs.path, "save", "before", 1, id="no figure"),
    pytest.param("by lam", torchlasso.runs.path, "write_page", "before", 1, id="no page"),
    pytest.param("by lam", RunFolder, "write_summary", "before", 1, id="no summary"),
    pytest.param("by lam", RunFolder, "write_summary", "after", 1, id="all written"),
    pytest.param("folds", LambdaLR, "step", "before", 60, id="in the path, with folds"),
    pytest.param("folds", RunFolder, "write_weights", "after", 5, id="the weights of a fold are written"),
    pytest.param("folds", RunFolder, "write_points", "after", 5, id="a point of a fold is written"),
    pytest.param("folds", RunFolder, "remove_weights", "before", 3, id="a fold is done"),
    pytest.param("cold", RunFolder, "write_weights", "after", 2, id="the weights of a cold point are written"),
    pytest.param("cold", RunFolder, "write_alone", "after", 5, id="a cold point is written"),
    pytest.param("cold", RunFolder, "gather_alone", "before", 2, id="the cold points of a fold are written"),
    pytest.param("cold", RunFolder, "write_points", "after", 2, id="the cold points of a fold are gathered"),
    pytest.param("by density", RunFolder, "write_points", "after", 1, id="before λ is searched"),
    pytest.param("by density", LambdaLR, "step", "before", 50, id="while λ is searched"),
    pytest.param("by density", RunFolder, "write_points", "after", 2, id="λ is found"),
    *(pytest.param("by lam", os, "fsync", "before", n, id=f"within file {n}") for n in (2, 3, 6, 7, 11, 13)),
]


@pytest.mark.parametrize(("kind", "owner", "name", "when", "call"), MOMENTS)
def test_an_interrupted_path_resumes(
    cli: Any,
    classes: Path,
    whole: Callable[[str], Path],
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    owner: Any,
    name: str,
    when: str,
    call: int,
) -> None:
    expected, run = whole(kind), tmp_path / "run"
    stop(owner, name, when, call)
    ended = cli("path", "--data", classes, "--out", run, *OPTIONS, *RUNS[kind])
    monkeypatch.undo()
    assert ended.code == 130
    assert ended.err.strip() == f"interrupted; resume with: torchlasso path --resume --out {run}"
    assert not [file for file in cli.contents(run) if file.endswith(".part")]
    ended = cli("path", "--resume", "--out", run, "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert_same_path(cli, run, expected)


@pytest.mark.parametrize(
    ("kind", "points"), [("by lam", 0), ("by lam", 1), ("by lam", 3), ("by lam", 4), ("by density", 2)]
)
def test_a_path_resumes_after_its_last_point(
    cli: Any, whole: Callable[[str], Path], tmp_path: Path, kind: str, points: int
) -> None:
    """As after a kill, which leaves an unfinished file, too."""
    run = shutil.copytree(whole(kind), tmp_path / "run")
    lines = (run / "path.jsonl").read_text().splitlines(keepends=True)
    (run / "path.jsonl").write_text("".join(lines[:points]))
    for file in ("model.safetensors", "summary.json", "report.html", "frontier.png", "frontier.svg"):
        (run / file).unlink()
    for file in list((run / "points").iterdir())[points + 1 :]:
        file.unlink()
    (run / "points" / f".torchlasso-{points:016x}.part").write_text("the first half of")
    ended = cli("path", "--resume", "--out", run)
    assert (ended.code, ended.err) == (0, "")
    trained = [f"point {k}/{len(lines)} " in ended.out for k in range(1, len(lines) + 1)]
    assert trained == [k >= points for k in range(len(lines))]
    assert (run / "path.jsonl").read_text().splitlines(keepends=True)[:points] == lines[:points]  # with their seconds
    assert_same_path(cli, run, whole(kind))


def test_dropout_and_batch_norm_resume(
    cli: Any, classes: Path, tmp_path: Path, models: str, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*OPTIONS, *RUNS["by lam"], "--model", f"{models}:noisy", "--optimizer", "sgd:momentum=0.9"]
    assert cli("path", "--data", classes, "--out", tmp_path / "whole", *options).code == 0
    stop(LambdaLR, "step", "before", 60)
    assert cli("path", "--data", classes, "--out", tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    assert cli("path", "--resume", "--out", tmp_path / "run", "--allow-code", f"{models}:noisy").code == 0
    assert_same_path(cli, tmp_path / "run", tmp_path / "whole")


def test_a_finished_path_can_be_resumed(cli: Any, whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = shutil.copytree(whole("by lam"), tmp_path / "run")
    ended = cli("path", "--resume", "--out", run)
    assert ended.code == 0
    assert "point " not in ended.out.split("\n\n")[0]
    assert_same_path(cli, run, whole("by lam"))


@pytest.mark.parametrize(
    "option", [("--points", "4"), ("--lams", "0.005,0.1"), ("--epochs", "6"), ("--choose", "one-se")]
)
def test_the_same_options_are_not_refused(
    cli: Any, whole: Callable[[str], Path], tmp_path: Path, option: tuple[str, str]
) -> None:
    run = shutil.copytree(whole("by lam"), tmp_path / "run")
    assert cli("path", "--resume", "--out", run, *option).code == 0


def test_a_fold_that_is_done_is_not_trained_again(cli: Any, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Only the other fold is trained, to the same figures."""
    run = shutil.copytree(whole("folds"), tmp_path / "run")
    (run / "fold-0.jsonl").unlink()
    first = (run / "fold-1.jsonl").read_bytes()
    ended = cli("path", "--resume", "--out", run, "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert "cross-validation: 2 folds, 1 done" in ended.out
    assert ("fold 1/2 done" in ended.out, "fold 2/2 done" in ended.out) == (True, False)
    assert (run / "fold-1.jsonl").read_bytes() == first
    assert_same_path(cli, run, whole("folds"))


@pytest.mark.usefixtures("whole_pages")
@pytest.mark.parametrize(("limit", "name"), [(300, "points"), (1_100, "path.jsonl"), (10_000, "frontier")])
def test_a_disk_that_becomes_full(
    cli: Any, whole: Callable[[str], Path], tmp_path: Path, limit: int, name: str
) -> None:
    """Nothing is lost or half-written, and with room the path goes on to the same files."""
    expected, run = whole("with a whole figure"), tmp_path / "run"
    run.mkdir()
    shutil.copy(expected / "config.json", run)
    with cli.full_disk(limit):
        ended = cli("path", "--resume", "--out", run)
    cli.assert_refused(ended, name)
    assert not list(run.rglob("*.part"))
    assert_prefix(cli, run, expected)
    assert cli("path", "--resume", "--out", run).code == 0
    assert_same_path(cli, run, expected)


def assert_prefix(cli: Any, run: Path, whole: Path) -> None:
    """Whatever files there are, are whole."""
    right = cli.contents(whole)
    for name, content in cli.contents(run).items():
        if name == "path.jsonl":
            lines = untimed(content)
            assert lines == untimed(right[name])[: len(lines)]
        else:
            assert content == right[name], name


def processes_of(group: int) -> list[str]:
    """The ids of the processes of a group that have not ended."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
            found += [file.parent.name] if its_group == str(group) and state != "Z" else []
    return found


def test_control_c_while_folds_are_trained(classes: Path, tmp_path: Path) -> None:
    """A terminal sends it to the processes of the folds too: one line, however far they are, and none is left."""
    run = tmp_path / "run"
    more = ("--lams", "0.005,0.1", "--points", "2", "--folds", "2", "--epochs-each", "20")
    with Program(("path", "--data", classes, "--out", run, *OPTIONS, *more), QUIET) as program:
        program.wait_for(lambda: "cross-validation" in program.out)
        time.sleep(0.5)  # the processes of the folds import their modules
        program.send(signal.SIGINT)
        ended = program.end()
        end = time.monotonic() + 30
        while time.monotonic() < end and processes_of(program.pid):
            time.sleep(0.01)
        assert not processes_of(program.pid)
    assert (ended.code, ended.err) == (130, f"interrupted; resume with: torchlasso path --resume --out {run}\n")
