"""The command line run in process, and small tables to train on."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import OPTIONS, Tool, succeed
from tests.support.pages import RUNS, Page, page_of, short_pages
from torchlasso.runs.folder import RunFolder
from torchlasso.storage import checkpoint

FEATURES = ("a", "b", "c", "d", "e")
MODELS = """
from torch import nn


def noisy(input_shape, outputs):
    return nn.Sequential(
        nn.Linear(input_shape[0], 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, outputs)
    )


def with_an_idle_layer(input_shape, outputs):
    model = nn.Linear(input_shape[0], outputs)
    model.add_module("idle", nn.Linear(3, 3))
    return model


def no_module(input_shape, outputs):
    return "a model"
"""


def _write(path: Path, x: np.ndarray, labels: Any, features: tuple[str, ...] = FEATURES) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*features, "label"])
        writer.writerows([*(f"{value:.5f}" for value in row), label] for row, label in zip(x, labels, strict=True))
    return path


@pytest.fixture(autouse=True)
def pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Short pages and frontiers; see ``whole_pages``."""
    with nullcontext() if "whole_pages" in request.fixturenames else short_pages():
        yield


@pytest.fixture
def whole_pages() -> None:
    """Pages and frontiers with all that there is to see."""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """classes.csv with three classes named by text, amounts.csv with decimal numbers, both.npz with a test part."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, len(FEATURES)))
    score = x @ np.array([1.5, -1.0, 0.0, 0.0, 0.0])
    names = np.array(["low", "middle", "high"])[np.digitize(score, [-0.7, 0.7])]
    _write(folder / "classes.csv", x, names)
    _write(folder / "amounts.csv", x, [f"{value + 0.01:.5f}" for value in score])
    y = (score > 0).astype(np.int64)
    np.savez(folder / "both.npz", x=x[:90], y=y[:90], x_test=x[90:], y_test=y[90:])
    return folder


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of stored rows of the test's own."""
    monkeypatch.setenv("TORCHLASSO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the ``call``-th call of a function raise KeyboardInterrupt, before or after it runs."""

    def arm(owner: Any, name: str, when: str, call: int) -> None:
        function, calls = getattr(owner, name), 0

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and when == "before":
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if calls == call:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, interrupted)

    return arm


@pytest.fixture(scope="session")
def classes(tables: Path) -> Path:
    return tables / "classes.csv"


@pytest.fixture(scope="session")
def amounts(tables: Path) -> Path:
    return tables / "amounts.csv"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with a user's models, in the current folder."""
    name = "models_of_ones_own"
    (tmp_path / f"{name}.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def train(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train on the classes with these options, for fixtures that several tests share; returns the folder."""

    def run(*options: str) -> Path:
        out = tmp_path_factory.mktemp("trained") / "run"
        succeed("train", "--data", classes, "--out", out, *OPTIONS, *options, short=True)
        return out

    return run


@pytest.fixture(scope="session")
def finished(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, classes and amounts, the first with both comparisons; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("classes", ["--compare", "dense,loss-term"]), ("amounts", [])):
        arguments = ["train", "--data", str(tables / f"{name}.csv"), "--out", str(folder / name), *OPTIONS, *more]
        succeed(*arguments)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a finished run, by its name."""

    def copy(name: str = "classes") -> Path:
        return Path(shutil.copytree(finished / name, tmp_path / f"copy-of-{name}"))

    return copy


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For subprocesses: as here, on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture
def stopped(cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after its second epoch."""
    calls, write = 0, RunFolder.write_checkpoint

    def interrupted(folder: RunFolder, state: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        write(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", interrupted)
        assert cli.train(classes, tmp_path / "stopped").code == 130
    assert checkpoint.load_state(tmp_path / "stopped" / "checkpoint" / "state.safetensors")["epoch"] == 2
    return tmp_path / "stopped"


@pytest.fixture(scope="session")
def run_of(finished: Path, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a finished run, by its name; not to be written to."""
    folder = tmp_path_factory.mktemp("pages")

    def found(name: str) -> Path:
        if name not in RUNS:
            return finished / name
        out = folder / name.replace(" ", "-")
        if not out.exists():
            succeed(*(word.format(tables=tables) for word in RUNS[name]), "--out", out)
        return out

    return found


@pytest.fixture
def drawn_again(cli: Any, run_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Page]:
    """The page of a copy of a run, drawn again after a change of its files."""

    def again(name: str, change: Callable[[Path], object] = lambda run: None) -> Page:
        run = Path(shutil.copytree(run_of(name), tmp_path / "run"))
        change(run)
        ended = cli("report", run, "--html")
        assert (ended.code, ended.out, ended.err) == (0, f"{run / 'report.html'}\n", "")
        return page_of(run)

    return again
