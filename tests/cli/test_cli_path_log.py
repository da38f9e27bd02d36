"""Trackers of a path: ``torchlasso path --log``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import lines_of
from tests.support.trackers import Server, mlflow_with, wandb_with
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--epochs", "2", "--collapse", "1")
OPTIONS += ("--lams", "0.005,0.1", "--points", "4")
WARM = (*OPTIONS, "--epochs-each", "1")
COLD = (*OPTIONS, "--start", "cold", "--folds", "2", "--jobs", "2")


def table(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_points(run: Path, points: int = 4) -> None:
    """The table has each point once, with the figures of the path's own file."""
    rows, lines = table(run), lines_of(run / "path.jsonl")
    assert [row["point"] for row in rows] == [str(1 + i) for i in range(points)]
    for row, line in zip(rows, lines, strict=False):
        assert float(row["lam"]) == line["lam"]
        assert float(row["sparsity"]) == line["sparsity"]
        assert float(row["loss"]) == line["losses"][-1]
        assert float(row["val_error"]) == line["validation"]["error"]
        assert row["stationarity_max"] == ("" if line["stationarity"] is None else str(line["stationarity"]["max"]))


@pytest.mark.parametrize("options", [WARM, COLD], ids=["warm", "cold, in two processes"])
def test_the_table_has_each_point(cli: Any, classes: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    run = tmp_path / "p"
    assert cli("path", "--data", classes, "--out", run, *options, "--log", "csv").code == 0
    assert_points(run)
    assert cli("path", "--resume", "--out", run, "--jobs", "1").code == 0
    assert_points(run)


def test_a_resumed_path_has_each_point_once(
    cli: Any, classes: Path, tmp_path: Path, stop: Any, monkeypatch: Any
) -> None:
    run, server = tmp_path / "p", Server()
    for name, module in wandb_with(server).items():
        monkeypatch.setitem(sys.modules, name, module)
    with monkeypatch.context() as patched:
        write = RunFolder.write_points

        def stopping(folder: RunFolder, points: Any, fold: Any = None) -> None:
            write(folder, points, fold)
            if len(points) == 3:
                raise KeyboardInterrupt

        patched.setattr(RunFolder, "write_points", stopping)
        assert cli("path", "--data", classes, "--out", run, *WARM, "--log", "csv,wandb").code == 130
    assert_points(run, 2)
    assert server.named("p").status == "FAILED"
    assert cli("path", "--resume", "--out", run).code == 0
    assert_points(run)
    assert server.named("p").steps("val_error") == [1, 2, 3, 4]
    assert server.named("p").status == "FINISHED"


def test_a_server_gets_the_options_and_the_chosen_point(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    server, run = Server(), tmp_path / "p"
    for name, module in mlflow_with(server).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert cli("path", "--data", classes, "--out", run, *WARM).code == 0
    assert not server.runs
    assert cli("path", "--resume", "--out", run, "--log", "mlflow").code == 0  # with all its points
    served = server.named("p")
    assert served.steps("loss") == served.steps("val_loss") == [1, 2, 3, 4]
    assert (served.params["points"], served.params["epochs_each"]) == ("4", "1")
    assert "path" not in served.params
    summary = cli.summary(run)
    [tested] = [metric for metric in served.metrics if metric.key == "test_error"]
    assert tested.value == summary["error"]
    chosen = lines_of(run / "path.jsonl")[tested.step - 1]
    assert (chosen["lam"], chosen["nonzero"]) == (summary["lam"], summary["nonzero"])


def test_tensorboard_has_each_point_once(cli: Any, classes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "p"
    assert cli("path", "--data", classes, "--out", run, *WARM, "--log", "tensorboard").code == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("training/lam")]
    assert found == [(1 + line["index"], pytest.approx(line["lam"])) for line in lines_of(run / "path.jsonl")]


@pytest.mark.parametrize("command", ["train", "path", "sweep"])
def test_none_stands_alone(cli: Any, classes: Path, tmp_path: Path, command: str) -> None:
    varied = ("--vary", "lr=1e-3,3e-3") if command == "sweep" else ()
    for given in ("csv,none", "none,csv"):
        ended = cli(command, "--data", classes, "--out", tmp_path / "run", *varied, "--log", given)
        cli.assert_refused(ended, f"--log none stands alone; got {given}")
    assert not (tmp_path / "run").exists()
    ended = cli(command, "--data", classes, "--out", tmp_path / "run", *varied, "--log", "cvs")
    cli.assert_refused(ended, "did you mean 'csv'?")


def test_a_missing_package_is_named_before_anything_is_written(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    ended = cli("path", "--data", classes, "--out", tmp_path / "run", *WARM, "--log", "csv,wandb")
    cli.assert_refused(ended, "--log wandb needs wandb: pip install 'torchlasso[wandb]'")
    assert not (tmp_path / "run").exists()
