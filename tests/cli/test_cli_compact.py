"""``torchlasso compact``, and ``train --shrink``: models that become smaller after and during training."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from torchlasso.compaction import multiples
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow

UNITS = ("--over", "units", "--model", "mlp:width=24,depth=2", "--lam", "0.002", "--epochs", "20")
SHRINKING = (*UNITS, "--shrink", "--reweight", "0.5", "--sparsity", "0.8", "--lam", "0.02", "--epochs", "8")


def pays_at_once(patch: pytest.MonkeyPatch) -> None:
    """Make even these small models smaller as soon as a unit is dead."""
    patch.setattr(importlib.import_module("torchlasso.compaction.while_training"), "PRICE", 1.0)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """For these small models, compaction always pays."""
    pays_at_once(monkeypatch)


@pytest.fixture(scope="module")
def trained(train: Callable[..., Path]) -> Path:
    """A finished run whose units are penalised; to be copied, not written to."""
    return train(*UNITS)


@pytest.fixture(scope="module")
def shrunk(train: Callable[..., Path]) -> Path:
    """A finished run whose model became smaller; not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        pays_at_once(patch)
        return train(*SHRINKING)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def shapes(file: Path) -> dict[str, list[int]]:
    with safe_open(file, framework="pt") as tensors:
        return {name: list(tensors.get_tensor(name).shape) for name in tensors.keys()}  # noqa: SIM118


def test_compact_removes_dead_units(cli: Any, run: Path) -> None:
    before = cli.contents(run)
    ended = cli("compact", run)
    assert (ended.code, ended.err) == (0, "")
    assert "The outputs are the same" in ended.out
    small, whole = shapes(run / "compact.safetensors"), shapes(run / "model.safetensors")
    assert small.keys() == whole.keys()
    assert small["fc1.weight"][0] < whole["fc1.weight"][0] == 24
    assert small["fc1.weight"][0] == small["fc2.weight"][1]
    assert {name: data for name, data in cli.contents(run).items() if name != "compact.safetensors"} == before
    report = json.loads(cli("compact", run, "--json").out)
    live = cli.summary(run)["live_units"]
    assert sum(family["after"] for family in report["families"]) - 3 <= live  # of the 3 outputs nothing goes
    assert report["after"]["parameters"] == sum(_count(shape) for shape in small.values())
    assert report["removed"] > 0


def _count(shape: list[int]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def test_units_are_kept_for_multiples(cli: Any, run: Path) -> None:
    assert cli("compact", run, "--multiple-of", "8").code == 0
    assert shapes(run / "compact.safetensors")["fc1.weight"][0] % 8 == 0


def test_units_are_kept_for_what_is_measured(cli: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def fastest(calls: dict[int, list[Any]], exact: int) -> int:
        sizes.append({args[0].shape[0] for _, args, _ in calls[exact]})
        return next(size for size in calls if size % 8 == 0)

    monkeypatch.setattr(multiples, "_chosen", {})
    monkeypatch.setattr(multiples, "_fastest", fastest)
    ended = cli("compact", run, "--multiple-of", "auto", "--batch", "33")
    assert (ended.code, ended.err) == (0, "")
    assert {33} in sizes
    assert all(size <= {33} for size in sizes)
    assert shapes(run / "compact.safetensors")["fc1.weight"][0] % 8 == 0


@pytest.mark.usefixtures("eager")
def test_a_model_shrinks_while_it_trains(cli: Any, classes: Path, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = cli.train(classes, run, *UNITS, "--shrink", "--compare", "dense,loss-term")
    assert (ended.code, ended.err) == (0, "")
    assert "dead units were removed" in ended.out
    assert shapes(run / "model.safetensors")["fc1.weight"][0] < 24
    assert shapes(run / "dense" / "model.safetensors")["fc1.weight"][0] == 24
    ours, theirs = cli.summary(run), cli.summary(trained)
    # close, not equal: the remaining rows lose the weights that read removed units, which were part of their norms
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1)
    assert ours["penalised"] == theirs["penalised"]  # removed weights count as zeros
    assert ours["sparsity"] == pytest.approx(theirs["sparsity"], abs=0.3)
    assert ours["parameters"] < theirs["parameters"]
    assert [line["sparsity"] for line in cli.metrics(run)] == sorted(line["sparsity"] for line in cli.metrics(run))
    for command in (["predict", run, "--data", classes], ["report", run], ["report", run, "--html"], ["compact", run]):
        assert cli(*command).code == 0
    assert shapes(run / "compact.safetensors")["fc1.weight"][0] <= shapes(run / "model.safetensors")["fc1.weight"][0]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("call", [1, 6])
def test_an_interrupted_run_resumes_in_its_present_shape(
    cli: Any, classes: Path, shrunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    run = tmp_path / "run"
    assert shapes(shrunk / "model.safetensors")["fc1.weight"][0] < 24
    with monkeypatch.context() as patch:
        function, calls = RunFolder.write_checkpoint, 0

        def interrupted(*args: Any) -> None:
            nonlocal calls
            function(*args)
            calls += 1
            if calls == call:
                raise KeyboardInterrupt

        patch.setattr(RunFolder, "write_checkpoint", interrupted)
        assert cli.train(classes, run, *SHRINKING).code == 130
    ended = cli.resume(run)
    assert (ended.code, ended.err) == (0, "")
    assert cli.metrics(run, timed=False) == cli.metrics(shrunk, timed=False)
    assert cli.summary(run, timed=False) == cli.summary(shrunk, timed=False)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (run, shrunk))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_bad_input(cli: Any, classes: Path, run: Path, tmp_path: Path) -> None:
    cli.assert_refused(cli("compact", tmp_path / "nowhere"), "nowhere", "holds no run")
    cli.assert_refused(cli("compact", run, "--multiple-of", "0"), "--multiple-of must be a whole number of at least 1")
    cli.assert_refused(cli("compact", run, "--multiple-of", "some"), "--multiple-of", "or auto; got 'some'")
    cli.assert_refused(cli("compact", run, "--batch", "0"), "--batch must be a whole number of at least 1")
    for given in ([], ["--multiple-of", "8"]):
        cli.assert_refused(cli("compact", run, "--batch", "16", *given), "--batch is for --multiple-of auto")
    assert not (run / "compact.safetensors").exists()
    other = tmp_path / "other"
    cli.assert_refused(cli.train(classes, other, "--over", "units:bye=size"), "did you mean 'by'")
    cli.assert_refused(cli.train(classes, other, "--over", "units:by=time"), "by must be 'size' or 'flops'; got 'time'")
    cli.assert_refused(cli.train(classes, other, "--over", "unit"), "unit", "did you mean 'units'")
