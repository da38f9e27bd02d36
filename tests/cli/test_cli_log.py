"""Trackers of a run: ``--log``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.trackers import Server, mlflow_with, wandb_with
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

REMOTE: dict[str, Callable[[Server], dict[str, ModuleType]]] = {"mlflow": mlflow_with, "wandb": wandb_with}


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Server]]:
    """A tracker with a server, by name."""
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    server = Server()
    for name, module in REMOTE[request.param](server).items():
        monkeypatch.setitem(sys.modules, name, module)
    return request.param, server


def table(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_metrics(cli: Any, classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.train(classes, run, "--log", "csv", "--compare", "dense", "--refit", "2").code == 0
    for part in (run, run / "dense", run / "refit"):
        found = [{name: json.loads(value) for name, value in row.items()} for row in table(part)]
        assert found == cli.metrics(part)


def test_an_interrupted_table_is_complete(cli: Any, classes: Path, tmp_path: Path, stop: Any, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    stop(RunFolder, "write_metrics", "after", 2)
    assert cli.train(classes, run, "--log", "csv").code == 130
    monkeypatch.undo()
    assert [row["epoch"] for row in table(run)] == ["1"]
    assert cli.resume(run).code == 0
    assert [row["epoch"] for row in table(run)] == ["1", "2", "3"]


def test_a_tracker_can_be_added_and_left_out(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    assert cli.resume(run, "--log", "csv").code == 0
    assert [row["epoch"] for row in table(run)] == ["1", "2", "3"]
    assert cli.resume(run, "--more-epochs", "1").code == 0
    assert len(table(run)) == len(table(run / "dense")) == 4
    assert cli.resume(run, "--more-epochs", "1", "--log", "none").code == 0
    assert len(table(run)) == 4


def test_tensorboard_has_each_epoch_once(cli: Any, classes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert cli.train(classes, run, "--log", "tensorboard").code == 0
    assert cli.resume(run, "--more-epochs", "2").code == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = cli.metrics(run)
    for tag, key in (("training/loss", "loss"), ("validation/error", "val_error"), ("training/sparsity", "sparsity")):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(line["epoch"], pytest.approx(line[key])) for line in lines]
    [tested] = events.Scalars("test/error")
    assert (tested.step, tested.value) == (5, pytest.approx(cli.summary(run)["error"]))
    assert cli.train(classes, run, "--overwrite").code == 0
    assert not (run / "tensorboard").exists()


def test_a_server_gets_each_epoch_once(cli: Any, classes: Path, tmp_path: Path, remote: tuple[str, Server]) -> None:
    name, server = remote
    run = tmp_path / "a"
    assert cli.train(classes, run, "--log", name, "--compare", "dense", "--refit", "2").code == 0
    assert {each.name: each.status for each in server.runs.values()} == dict.fromkeys(
        ("a", "a/dense", "a/refit"), "FINISHED"
    )
    assert cli.resume(run, "--more-epochs", "2").code == 0
    served, lines = server.named("a"), cli.metrics(run)
    assert served.steps("val_error") == [1, 2, 3, 4, 5]
    assert [metric.value for metric in served.metrics if metric.key == "loss"] == [line["loss"] for line in lines]
    assert served.params["lam"] == "0.02"
    final = dict(served.summary) | {metric.key: metric.value for metric in served.metrics}
    assert final["test_error"] == cli.summary(run)["error"]
    assert final["final_nonzero"] == cli.summary(run)["nonzero"]
    assert server.named("a/dense").steps("loss") == [1, 2, 3, 4, 5]
    known = set(server.runs)
    assert cli.train(classes, run, "--log", name, "--overwrite").code == 0
    assert len(set(server.runs) - known) == 1


def test_an_interrupted_run_is_marked(
    cli: Any, classes: Path, tmp_path: Path, remote: tuple[str, Server], stop: Any
) -> None:
    name, server = remote
    stop(RunFolder, "write_metrics", "after", 2)
    assert cli.train(classes, tmp_path / "a", "--log", name).code == 130
    assert server.named("a").status == "FAILED"
    assert cli.resume(tmp_path / "a").code == 0
    assert server.named("a").status == "FINISHED"
    assert server.named("a").steps("loss") == [1, 2, 3]


def test_training_goes_on_without_a_broken_server(
    cli: Any, classes: Path, tmp_path: Path, remote: tuple[str, Server], monkeypatch: Any
) -> None:
    name, server = remote
    write = RunFolder.write_checkpoint

    def broken(folder: RunFolder, state: dict[str, Any]) -> None:
        server.broken = state["epoch"] == 2
        write(folder, state)

    monkeypatch.setattr(RunFolder, "write_checkpoint", broken)
    ended = cli.train(classes, tmp_path / "a", "--log", f"csv,{name}")
    assert ended.code == 0
    assert f"--log {name} failed, and a goes on without it: no connection\n" in ended.out
    assert server.named("a").steps("loss") == [1]
    assert len(table(tmp_path / "a")) == 3


def test_a_server_that_does_not_answer_is_said_before_training(
    cli: Any, classes: Path, tmp_path: Path, remote: tuple[str, Server]
) -> None:
    name, server = remote
    server.broken = True
    ended = cli.train(classes, tmp_path / "a", "--log", name)
    cli.assert_refused(ended, f"--log {name} cannot be used: no connection", "--resume --log none")
    assert cli.resume(tmp_path / "a", "--log", "none").code == 0


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_a_missing_package_is_named_before_anything_is_written(
    cli: Any, classes: Path, tmp_path: Path, copied: Callable[..., Path], monkeypatch: Any, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    ended = cli.train(classes, tmp_path / "run", "--log", f"csv,{name}")
    cli.assert_refused(ended, f"--log {name} needs {name}: pip install 'torchlasso[{name}]'")
    assert not (tmp_path / "run").exists()
    run = copied()
    before = cli.contents(run)
    cli.assert_refused(cli.resume(run, "--log", name), "pip install")
    assert cli.contents(run) == before


def test_an_unknown_tracker_is_refused(cli: Any, classes: Path, tmp_path: Path, copied: Callable[..., Path]) -> None:
    cli.assert_refused(cli.train(classes, tmp_path / "run", "--log", "tensorbord"), "did you mean 'tensorboard'?")
    assert not (tmp_path / "run").exists()
    cli.assert_refused(cli.resume(copied(), "--log", "weights"), "unknown tracker 'weights'", "csv, mlflow")


def test_a_damaged_file_of_identities_is_refused(
    cli: Any, classes: Path, tmp_path: Path, remote: tuple[str, Server]
) -> None:
    run = tmp_path / "a"
    assert cli.train(classes, run, "--log", remote[0]).code == 0
    (run / "trackers.json").write_text("[1]")
    cli.assert_refused(cli.resume(run), "trackers.json is damaged")
