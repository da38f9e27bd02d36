"""Many trainings in processes: the same results, to the bit, with workers that are killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest

from tests.support import workers as work
from torchlasso.engine import Engine, Workers


def test_one_job_runs_in_this_process_and_lazily() -> None:
    begun: list[int] = []

    def arguments(number: int) -> tuple[int]:
        begun.append(number)
        return (number,)

    with Engine(jobs=1).started() as workers:
        found = workers.run(work.refused, [0, 1, 2], arguments)
        assert next(found) == (0, 0)
        assert begun == [0]
        with pytest.raises(ValueError, match="1 is refused"):
            next(found)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.filterwarnings("ignore:A worker stopped:UserWarning")  # of loky
def test_a_killed_worker_changes_no_bit(tmp_path: Path) -> None:
    work.check_that_a_killed_worker_changes_no_bit(Engine("joblib", jobs=2), tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_a_training_that_always_kills_its_worker_is_found_and_the_others_are_done() -> None:
    with Engine(jobs=2).started() as workers:
        keys = [0, 2, 1, 3]
        lost = dict(workers.run(work.killed_at_two, keys, lambda number: (number,), lambda number: -number))
        assert lost == {0: 0, 1: 1, 2: -2, 3: 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "dask"}, "unknown engine 'dask'.*joblib, ray"),
        ({"jobs": 0}, "jobs must be a number .*; got 0"),
        ({"threads": 0}, "threads must be a whole number of at least 1; got 0"),
    ],
)
def test_an_engine_that_cannot_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Engine(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "module", "extra"), [("joblib", "joblib", "sweep"), ("ray", "ray", "ray")])
def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"needs {module}: pip install 'torchlasso\[{extra}\]'"):
        Engine(name, jobs=2).check_installed()
    Engine(name, jobs=1).check_installed()


def test_a_result_that_comes_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a worker is killed, joblib can hand on what was left of the calls before."""

    def fallen(workers: Workers, task: object, keys: list[int], arguments: object) -> Iterator[tuple[int, int]]:
        yield from ((keys[0], -keys[0]), (keys[0], -keys[0]), (7, -7))

    monkeypatch.setattr(Workers, "_fallen", fallen)
    workers = Workers(joblib.Parallel(n_jobs=2), threads=1)
    assert list(workers.run(abs, [1, 2, 3], lambda key: (key,))) == [(1, -1), (2, -2), (3, -3)]
