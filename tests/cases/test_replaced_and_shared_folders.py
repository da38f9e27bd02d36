"""One folder, several runs: --overwrite replaces this run's own files alone, and one training at a time has it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import Tool, succeed
from tests.support.pages import short_pages
from tests.support.programs import Program
from torchlasso._core.locks import held
from torchlasso.runs.folder import RunFolder

OPTIONS = ("--model", "mlp:width=4,depth=1", "--epochs", "1", "--lam", "0.01")


@pytest.fixture(scope="module", autouse=True)
def pages() -> Iterator[None]:
    """Short pages."""
    with short_pages():
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rows.npz"
    rng = np.random.default_rng(0)
    np.savez(file, x=rng.normal(size=(60, 3)), y=rng.integers(0, 2, 60))
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str]:
    ended = Tool(capsys)(*arguments)
    return ended.code, ended.err


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both comparisons."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    succeed("train", "--data", rows, "--out", folder, *OPTIONS, "--compare", "dense,loss-term")
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs", symlinks=True))


def contents(folder: Path) -> dict[str, object]:
    def content(path: Path) -> object:
        return path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None

    return {path.relative_to(folder).as_posix(): content(path) for path in sorted(folder.rglob("*"))}


def overwrite(capsys: pytest.CaptureFixture[str], rows: Path, out: Path, *more: str) -> tuple[object, str]:
    return run(capsys, "train", "--data", rows, "--out", out, "--overwrite", *OPTIONS, *more)


def test_runs_below_a_run_stay(capsys: pytest.CaptureFixture[str], rows: Path, trained: Path, runs: Path) -> None:
    for name in ("a", "b/c", "export/deep", "points/deep"):
        shutil.copytree(trained, runs / name)
    below = {name: contents(runs / name) for name in ("a", "b", "export", "points")}
    assert overwrite(capsys, rows, runs) == (0, "")
    assert {name: contents(runs / name) for name in below} == below
    assert not (runs / "dense").exists()  # the comparisons were of this run


def test_files_of_the_user_stay(capsys: pytest.CaptureFixture[str], rows: Path, runs: Path) -> None:
    names = ["notes.txt", "export/notes.md", "points/mine.txt", "fold-best.jsonl", "dense/notes.txt", "checkpoint/x"]
    names += ["other.part", ".hidden.part", "config.json.bak"]
    for name in names:
        (runs / name).parent.mkdir(exist_ok=True)
        (runs / name).write_text("mine")
    ours = ("export/model.onnx", "export/compact.sparse.safetensors", "points/000.safetensors", "fold-3.jsonl")
    for name in ours:
        (runs / name).write_text("old")
    assert overwrite(capsys, rows, runs) == (0, "")
    assert all((runs / name).read_text() == "mine" for name in names)
    assert not any((runs / name).exists() for name in ours)
    assert not (runs / "dense" / "config.json").exists()


def in_the_way(runs: Path, name: str) -> None:
    path = runs / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "export/model.onnx", "checkpoint/state.safetensors", "dense/summary.json", "report.html"],
)
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_a_link_in_the_place_of_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], rows: Path, runs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    in_the_way(runs, name)
    (tmp_path / "precious").write_text("mine")
    if kind == "folder":
        (runs / name).mkdir()
        (runs / name / "inside").write_text("mine")
    else:
        (runs / name).symlink_to(tmp_path / "precious")
    before = contents(tmp_path)
    code, err = overwrite(capsys, rows, runs)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{runs / name} is a {kind}" in err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoint", "export", "points", "dense"])
def test_a_linked_folder_is_refused(
    capsys: pytest.CaptureFixture[str], rows: Path, runs: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (runs / name).exists():
        (runs / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
        (elsewhere / "model.onnx").write_text("mine")
    (runs / name).symlink_to(elsewhere)
    before = contents(tmp_path)
    code, err = overwrite(capsys, rows, runs)
    assert (code, err.count("\n")) == (2, 1)
    assert name in err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("more", [[], ["--compare", "dense"]])
def test_a_run_of_its_own_where_a_comparison_would_be_is_refused(
    capsys: pytest.CaptureFixture[str], rows: Path, runs: Path, more: list[str]
) -> None:
    shutil.rmtree(runs / "dense")
    assert run(capsys, "train", "--data", rows, "--out", runs / "dense", *OPTIONS, "--seed", "7")[0] == 0
    before = contents(runs)
    code, err = overwrite(capsys, rows, runs, *more)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{runs / 'dense'} holds an unrelated run" in err
    assert contents(runs) == before


def test_a_new_run_above_a_run_takes_none_for_a_comparison(
    capsys: pytest.CaptureFixture[str], rows: Path, tmp_path: Path
) -> None:
    assert run(capsys, "train", "--data", rows, "--out", tmp_path / "dense", *OPTIONS, "--seed", "7")[0] == 0
    before = contents(tmp_path)
    code, err = run(capsys, "train", "--data", rows, "--out", tmp_path, *OPTIONS, "--compare", "dense")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds an unrelated run" in err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_comparison_is_not_trained_alone(
    capsys: pytest.CaptureFixture[str], rows: Path, runs: Path, how: str
) -> None:
    before = contents(runs)
    given = ["--data", rows, *OPTIONS] if how == "--overwrite" else []
    code, err = run(capsys, "train", "--out", runs / "dense", how, *given)
    assert (code, err) == (2, f"error: {runs / 'dense'} is a part of the run in {runs}; give that folder instead\n")
    assert contents(runs) == before


@pytest.mark.parametrize("command", ["resume", "overwrite", "path"])
def test_a_second_training_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], rows: Path, runs: Path, command: str
) -> None:
    words: dict[str, list[Any]] = {
        "resume": ["train", "--resume"],
        "overwrite": ["train", "--overwrite", "--data", rows, *OPTIONS],
        "path": ["path", "--overwrite", "--data", rows, "--model", "mlp:width=4", "--points", "2"],
    }
    with RunFolder(runs).locked():
        before = contents(runs)
        code, err = run(capsys, *words[command], "--out", runs)
        assert (code, err) == (2, f"error: {runs} is in use: another training writes into it\n")
        assert contents(runs) == before
    assert not (runs / ".lock").exists()
    assert run(capsys, "train", "--resume", "--out", runs)[0] == 0


def test_a_training_that_begins_while_another_prepares_is_refused(
    capsys: pytest.CaptureFixture[str], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found an empty folder; the second comes while the first trains, or when it is done."""
    out = tmp_path / "run"
    read = RunFolder.locked
    finished: list[object] = []

    def late(folder: RunFolder) -> Any:
        if not finished:
            finished.append(1)
            assert run(capsys, "train", "--data", rows, "--out", out, *OPTIONS)[0] == 0
            finished.append(contents(out))
        return read(folder)

    monkeypatch.setattr(RunFolder, "locked", late)
    code, err = run(capsys, "train", "--data", rows, "--out", out, *OPTIONS)
    assert (code, err.count("\n")) == (2, 1)
    assert "has just started" in err
    assert contents(out) == finished[1]


def test_two_programs_at_once(capsys: pytest.CaptureFixture[str], rows: Path, tmp_path: Path) -> None:
    """One trains; the other says so. When the first is killed, its folder can be resumed."""
    out = tmp_path / "run"
    given = ("train", "--out", out, "--data", rows, "--model", "mlp:width=4,depth=1", "--epochs", "100000")
    with Program(given) as first:
        first.wait_for((out / "metrics.jsonl").exists)
        second = run(capsys, "train", "--out", out, "--resume")
        assert first.is_running
    assert second == (2, f"error: {out} is in use: another training writes into it\n")
    assert (out / ".lock").exists()  # of the one that was killed
    with RunFolder(out).locked():
        pass
    assert not (out / ".lock").exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    (runs / ".lock").symlink_to(tmp_path / "precious")
    code, err = run(capsys, "train", "--resume", "--out", runs)
    assert (code, err.count("\n")) == (2, 1)
    assert ".lock" in err
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with held(file, "taken"):
        file.unlink()
        with held(file, "taken"):
            assert file.exists()
    assert not file.exists()
