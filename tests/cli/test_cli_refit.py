"""torchlasso train with --refit: the better of two models is kept, and its zeros stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.command_line import weights
from torchlasso import data

pytestmark = pytest.mark.slow

REFIT = ("--refit", "20", "--model", "mlp:depth=0", "--lam", "0.2", "--validation", "0.3", "--epochs", "20")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers that nothing can be learnt about: the less a model is shrunk the worse it is."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("noise") / "noise.npz"
    np.savez(path, x=rng.normal(size=(80, 10)), y=rng.normal(size=80))
    return path


def loss_of(run: Path, table: Path, held: dict[str, Tensor], validation: float) -> float:
    """The validation loss of the weights of a linear model, with the scale of the run's configuration."""
    dataset = data.load(str(table))
    _, rows = data.holdout(dataset.y, validation, 0)
    inputs = json.loads((run / "config.json").read_text())["inputs"]
    scale, y = inputs["standardizer"], data.Standardizer(**inputs["scale"])(dataset.y)
    x = (dataset.x[rows] - torch.tensor(scale["mean"])) / torch.tensor(scale["std"])
    outputs = nn.functional.linear(x, held["head.weight"], held["head.bias"])
    return nn.functional.mse_loss(outputs, y[rows]).item()


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [("adamw:weight_decay=0.5", 0.05), ("sgd:momentum=0.9", 0.02), ("adagrad", 0.5)],  # adam is in the tests below
)
def test_a_refit_that_is_better_is_kept(cli: Any, amounts: Path, tmp_path: Path, optimizer: str, rate: float) -> None:
    """The shrinkage of a large λ is undone, and zeros stay zero."""
    options = [*REFIT, "--optimizer", optimizer, "--lr", rate]
    assert cli.train(amounts, tmp_path / "plain", *options[2:]).code == 0
    ended = cli.train(amounts, tmp_path / "run", *options)
    assert (ended.code, ended.err) == (0, "")
    before, after = weights(tmp_path / "plain"), weights(tmp_path / "run")
    for name, w in before.items():
        if w.dim() == 2:
            assert 0 < int((w == 0).sum()) < w.numel()
            assert not bool(after[name][w == 0].any())
    assert not torch.equal(before["head.weight"], after["head.weight"])
    plain, summary = cli.summary(tmp_path / "plain"), cli.summary(tmp_path / "run")
    assert summary["refit"]["kept"]
    assert summary["refit"]["epochs"] == 20
    assert summary["refit"]["before"] == pytest.approx(loss_of(tmp_path / "run", amounts, before, 0.3), rel=1e-5)
    assert summary["refit"]["after"] == pytest.approx(loss_of(tmp_path / "run", amounts, after, 0.3), rel=1e-5)
    assert summary["refit"]["after"] < summary["refit"]["before"]
    assert (summary["sparsity"], summary["lam"], summary["epochs"]) == (plain["sparsity"], 0.2, 20)
    assert summary["loss"] < plain["loss"]
    assert "refit" not in plain


def test_a_refit_that_is_no_better_is_not_kept(cli: Any, noise: Path, tmp_path: Path) -> None:
    options = ["--lam", "0.1", "--validation", "0.3", "--epochs", "10"]
    assert cli.train(noise, tmp_path / "plain", *options).code == 0
    ended = cli.train(noise, tmp_path / "run", *options, "--refit", "60")
    assert (ended.code, ended.err) == (0, "")
    found = cli.summary(tmp_path / "run").pop("refit")
    assert not found["kept"]
    assert found["after"] > found["before"]
    assert found["before"] == pytest.approx(cli.metrics(tmp_path / "plain")[-1]["val_loss"])
    assert found["after"] == pytest.approx(cli.metrics(tmp_path / "run" / "refit")[-1]["val_loss"])
    left, right = cli.contents(tmp_path / "run"), cli.contents(tmp_path / "plain")
    assert left["model.safetensors"] == right["model.safetensors"]
    plain, summary = (cli.summary(tmp_path / name, timed=False) for name in ("plain", "run"))
    assert {key: value for key, value in summary.items() if key != "refit"} == plain


def test_a_refit_that_is_equally_good_is_not_kept(cli: Any, classes: Path, tmp_path: Path) -> None:
    """With a tiny learning rate, the error stays the same."""
    assert cli.train(classes, tmp_path / "run", "--refit", "1", "--lr", "1e-12").code == 0
    found = cli.summary(tmp_path / "run")["refit"]
    assert (found["kept"], found["before"]) == (False, found["after"])


def test_the_folder_of_a_refit(cli: Any, amounts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = cli.train(amounts, run, *REFIT)
    own = {name for name in cli.contents(run) if name.startswith("refit/")}
    assert own == {f"refit/{name}" for name in ("config.json", "metrics.jsonl", "checkpoint/state.safetensors")}
    lines = cli.metrics(run / "refit")
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert {line["lam"] for line in lines} == {0}
    assert {line["sparsity"] for line in lines} == {cli.metrics(run)[-1]["sparsity"]}
    assert {line["switched"] for line in lines} == {0}
    assert 0 < lines[0]["lr"] < 0.3 * 0.05  # a third of the rate, and it falls
    assert lines[-1]["lr"] == pytest.approx(0, abs=1e-12)
    found = cli.summary(run)["refit"]
    said = f"The refit is kept: it changed the validation loss from {found['before']:.4f} to {found['after']:.4f}."
    assert said in ended.out
    assert said in cli("report", run).out
    assert said in (run / "report.html").read_text()
    assert json.loads(cli("report", run, "--json").out)["refit"] == found
