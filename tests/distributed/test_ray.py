"""Trainings on Ray: the results of one process, to the bit. One cluster serves all tests: to start one takes long."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from tests.support import workers as work
from tests.support.command_line import succeed
from tests.support.selecting import FAST, few_points, made_genes, same_selection, write
from torchlasso.engine import Engine
from torchlasso.estimators import SparseClassifier, SparseClassifierCV, StabilitySelection
from torchlasso.kept_results import keep_results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_sweep.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A local cluster as an engine starts it, and ends it; outside of engines, joblib stays what it is."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE.parent))  # so that the workers find the example
        with Engine("ray", jobs=2).for_estimators():
            assert ray.is_initialized()
            with joblib.parallel_config("sequential"):
                yield
    assert not ray.is_initialized()


def test_a_killed_worker_changes_no_bit(tmp_path: Path) -> None:
    work.check_that_a_killed_worker_changes_no_bit(Engine("ray", jobs=2), tmp_path / "killed")


def test_workers_stay_from_one_call_to_the_next() -> None:
    with Engine("ray", jobs=2).for_estimators():
        calls = [set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(8))) for _ in range(3)]
    found = set[int]().union(*calls)
    assert len(found) <= 2  # one of the two may do all the work of a call
    assert os.getpid() not in found


def test_estimators_in_an_engine_and_by_joblibs_own_context(tmp_path: Path) -> None:
    from ray.util.joblib import register_ray

    rows = np.random.default_rng(0).normal(size=(80, 6))
    classes = np.where(rows[:, 2] > 0, "well", "ill")
    stability: Any = StabilitySelection(SparseClassifier(hidden=()), pairs=2, random_state=0)
    chosen: Any = SparseClassifierCV(hidden=(), cv=3, lams=4, random_state=0)

    def bits(fitted: Any) -> list[bytes]:
        return [fitted.scores_.tobytes(), fitted.support_.tobytes(), fitted.lams_.tobytes()]

    wanted = [bits(each.fit(rows, classes)) for each in (stability, chosen)]
    register_ray()
    with keep_results(tmp_path):
        with Engine("ray", jobs=2).for_estimators():
            found = [bits(stability.fit(rows, classes))]
        with joblib.parallel_config("ray"):
            found += [bits(chosen.set_params(n_jobs=2).fit(rows, classes))]
        kept = set(tmp_path.iterdir())
        assert len(kept) == 4 + 3
        assert [bits(each.set_params(n_jobs=1).fit(rows, classes)) for each in (stability, chosen)] == wanted
        assert set(tmp_path.iterdir()) == kept  # the results of Ray's workers are those that one process looks for
    assert found == wanted


def test_a_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_points(monkeypatch)
    table = write(tmp_path / "genes.csv", made_genes())
    command = ("select", "--data", table, "--group", "animal", "--features", "2", *FAST)
    succeed(*command, "--out", tmp_path / "here")
    succeed(*command, "--engine", "ray", "--jobs", "2", "--out", tmp_path / "there")
    assert same_selection(tmp_path / "there", tmp_path / "here")


def test_the_example_finds_on_ray_what_one_process_finds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("ray_sweep")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ray_sweep", example)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "ZEROS", (0.8,))
    found = example.main()
    assert found == example.main("joblib", 1)
    assert len(found) == 2
    for (_, zeros), (share, error) in found.items():
        assert share == pytest.approx(zeros, abs=0.02)
        assert error < 0.6
    assert "lr 0.005 is best" in capsys.readouterr().out
