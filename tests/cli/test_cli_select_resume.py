"""torchlasso select that is stopped: it goes on to the bit, trains nothing twice, and keeps its options."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import succeed
from tests.support.programs import QUIET, Program
from tests.support.selecting import few_points, made_genes, same_selection, write
from torchlasso import kept_results
from torchlasso.runs.selecting import running
from torchlasso.storage import checkpoint

pytestmark = pytest.mark.slow

CHOICE = ("--group", "animal", "--features", "2")
OPTIONS = (*CHOICE, "--pairs", "2", "--folds", "2", "--jobs", "1")


@pytest.fixture(scope="module", autouse=True)
def fewer_points() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_points(patch)
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


MOMENTS = [
    pytest.param(checkpoint, "save_state", "before", 1, id="nothing is kept"),
    pytest.param(checkpoint, "save_state", "after", 1, id="a fold is kept"),
    pytest.param(checkpoint, "save_state", "after", 3, id="the search is kept"),
    pytest.param(checkpoint, "save_state", "after", 6, id="in the halves"),
    pytest.param(checkpoint, "save_state", "after", 11, id="in the scores"),
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
    assert same_selection(out, selected)
    assert not kept & set(written)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in selected.iterdir())


def test_a_killed_selection_in_two_processes_resumes_to_the_bit(
    cli: Any, table: Path, selected: Path, tmp_path: Path
) -> None:
    """All of its processes are killed while it fits the halves; they are forked, so that none imports torch anew."""
    out = tmp_path / "out"
    options = ("select", "--data", table, *OPTIONS[:-1], "2", "--out", out)
    few = "import pytest; from tests.support.selecting import few_points; few_points(pytest.MonkeyPatch())"
    forked = "from joblib.externals.loky.backend.context import set_start_method; set_start_method('fork')"
    with Program(options, f"{few}; {forked}; {QUIET}") as program:
        program.wait_for(lambda: len(list(out.glob("parts/*.safetensors"))) >= 6)
        assert program.is_running, program.end()
        program.send(signal.SIGKILL)
        assert program.end().code == -signal.SIGKILL
    assert not (out / "selection.json").exists()
    ended = cli("select", "--resume", "--jobs", "1", "--out", out)
    assert ended.code == 0, ended.err
    assert same_selection(out, selected)


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
    assert same_selection(tmp_path, selected)


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
    assert same_selection(out, selected)
