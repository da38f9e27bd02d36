"""torchlasso select that is stopped: it goes on to the bit, trains nothing twice, and keeps its options."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import succeed
from tests.support.selecting import FAST, made_genes, write
from torchlasso import kept_results
from torchlasso.runs.selecting import computing, running
from torchlasso.storage import checkpoint

pytestmark = pytest.mark.slow

CHOICE = ("--group", "animal", "--features", "2")
OPTIONS = (*CHOICE, *FAST)


@pytest.fixture(scope="module", autouse=True)
def fewer_points() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing, "LAMS", 10)
        patch.setattr(computing, "THRESHOLDS", 20)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("genes") / "genes.csv", made_genes())


@pytest.fixture(scope="module")
def selected(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished selection; not to be written to."""
    out = tmp_path_factory.mktemp("selected") / "two"
    succeed("select", "--data", table, *OPTIONS, "--out", out)
    return out


def same(folder: Path, other: Path) -> bool:
    """Return whether two selections are the same to the bit, the page with its pictures included."""
    records = [json.loads((path / "selection.json").read_text()) | {"seconds": 0} for path in (folder, other)]
    features = [(path / "features.csv").read_bytes() for path in (folder, other)]
    return records[0] == records[1] and features[0] == features[1]


MOMENTS = [
    pytest.param(checkpoint, "save_state", "before", 1, id="nothing is kept"),
    pytest.param(checkpoint, "save_state", "after", 2, id="a fold is kept"),
    pytest.param(checkpoint, "save_state", "after", 4, id="the search is kept"),
    pytest.param(checkpoint, "save_state", "after", 8, id="in the halves"),
    pytest.param(checkpoint, "save_state", "after", 14, id="in the scores"),
    pytest.param(running, "write_json", "before", 1, id="all but the record is written"),
]


@pytest.mark.parametrize(("owner", "name", "when", "call"), MOMENTS)
def test_a_stopped_selection_resumes_to_the_bit_and_trains_nothing_twice(
    cli: Any,
    table: Path,
    selected: Path,
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    when: str,
    call: int,
) -> None:
    out = tmp_path / "out"
    stop(owner, name, when, call)
    ended = cli("select", "--data", table, *OPTIONS, "--out", out)
    monkeypatch.undo()
    assert ended.code == 130
    assert ended.err.strip() == f"interrupted; resume with: torchlasso select --resume --out {out}"
    kept = {path.name for path in (out / "parts").iterdir()}
    written: list[str] = []
    save_state = checkpoint.save_state

    def counted(path: Path, state: Any) -> None:
        written.append(path.name)
        save_state(path, state)

    monkeypatch.setattr(checkpoint, "save_state", counted)
    ended = cli("select", "--resume", "--out", out, "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert same(out, selected)
    assert not kept & set(written)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in selected.iterdir())


def test_a_killed_selection_in_two_processes_resumes_to_the_bit(cli: Any, table: Path, tmp_path: Path) -> None:
    """All of its processes are killed while it fits the halves."""
    command = [sys.executable, "-m", "torchlasso", "select", "--data", str(table), "--group", "animal", "--features"]
    out, more = tmp_path / "out", ("2", "--folds", "2", "--pairs", "4", "--jobs", "2", "--out")
    with subprocess.Popen([*command, *more, str(out)], start_new_session=True, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 120
        while not out.is_dir() or len(list(out.glob("parts/*.safetensors"))) < 8:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "selection.json").exists()
    again = subprocess.run([*command[:4], "--resume", "--jobs", "1", "--out", out], capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    whole = subprocess.run([*command, *more[:5], "--jobs", "1", "--out", tmp_path / "whole"], check=False)
    assert whole.returncode == 0
    assert same(out, tmp_path / "whole")


def test_the_same_on_ray(cli: Any, table: Path, selected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = cli("select", "--data", table, *OPTIONS, "--engine", "ray", "--jobs", "2", "--out", out)
    assert ended.code == 0, ended.err
    assert same(out, selected)


def test_a_finished_selection_is_shown_again(
    cli: Any, selected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(selected, tmp_path / "out")
    monkeypatch.setattr(kept_results, "call_once", None)
    ended = cli("select", "--resume", "--out", out, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == json.loads((selected / "selection.json").read_text())
    assert cli.contents(out) == cli.contents(selected)


def test_a_damaged_part_is_made_again(
    cli: Any, table: Path, selected: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(checkpoint, "save_state", "after", 9)
    assert cli("select", "--data", table, *OPTIONS, "--out", tmp_path).code == 130
    monkeypatch.undo()
    for number, part in enumerate(sorted((tmp_path / "parts").iterdir())):
        part.write_bytes(part.read_bytes()[: 40 * number] + b"x")
    assert cli("select", "--resume", "--out", tmp_path, "--jobs", "1").code == 0
    assert same(tmp_path, selected)


def test_what_a_resume_refuses(
    cli: Any, table: Path, selected: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    cli.assert_refused(cli("select", "--resume", "--out", out), "holds no selection to resume")
    stop(checkpoint, "save_state", "after", 1)
    assert cli("select", "--data", table, *OPTIONS, "--out", out).code == 130
    monkeypatch.undo()
    before = cli.contents(out)
    again = ("select", "--data", table, *OPTIONS, "--out", out)
    cli.assert_refused(cli(*again), "not finished", "--resume")
    cli.assert_refused(cli(*again, "--resume", "--overwrite"), "exclude each other")
    cli.assert_refused(cli("select", "--resume", "--features", "3", "--out", out), "--features 3", "the selection's 2")
    assert cli.contents(out) == before
    (out / "options.json").write_text((out / "options.json").read_text().replace(str(table), "sent.evil:rows"))
    cli.assert_refused(cli("select", "--resume", "--out", out), "--allow-code sent.evil:rows")
    (out / "options.json").write_text('{"data": 3}')
    cli.assert_refused(cli("select", "--resume", "--out", out), "options.json is damaged: 'data' is 3")
    assert cli(*again, "--overwrite").code == 0
    assert same(out, selected)
