"""A finished run that gets more epochs: ``--more-epochs``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

import torchlasso.runs.folder
import torchlasso.runs.train
from tests.support.command_line import succeed, weights
from torchlasso.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_registry")]

CONSTANT = ("--schedule", "constant", "--compare", "dense")
# as a run with a hold, the best epoch, a comparison and a refit
WHOLE = ("--sparsity", "0.7", "--keep-best", "loss", "--compare", "dense", "--refit", "2", "--epochs", "6")
WHOLE += ("--save-every", "3")


def assert_same(cli: Any, one: Path, other: Path) -> None:
    for part in ("", "dense/"):
        assert (one / part / "model.safetensors").read_bytes() == (other / part / "model.safetensors").read_bytes()
        assert cli.metrics(one / part, timed=False) == cli.metrics(other / part, timed=False)
    assert cli.summary(one, timed=False) == cli.summary(other, timed=False)


def test_with_a_constant_rate_it_is_the_run_of_all_epochs(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "whole", *CONSTANT, "--epochs", "6").code == 0
    assert cli.train(classes, tmp_path / "run", *CONSTANT, "--epochs", "3").code == 0
    assert cli.resume(tmp_path / "run", "--more-epochs", "2").code == 0
    ended = cli.resume(tmp_path / "run", "--more-epochs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert "epoch 6/6" in ended.out
    assert_same(cli, tmp_path / "run", tmp_path / "whole")


STOPS = [
    pytest.param(LambdaLR, "step", "before", 5, id="in its first epoch, after it was saved"),
    pytest.param(RunFolder, "write_metrics", "after", 2, id="metrics written, checkpoint not"),
    pytest.param(RunFolder, "write_checkpoint", "after", 3, id="before the refit"),
    pytest.param(RunFolder, "write_model", "before", 1, id="after the refit"),
    pytest.param(LambdaLR, "step", "before", 40, id="in the comparison"),
    pytest.param(torchlasso.runs.train, "write_page", "before", 1, id="no page"),
]


@pytest.fixture(scope="module")
def short(train: Callable[..., Path]) -> Path:
    return train(*WHOLE)


@pytest.fixture(scope="module")
def longer(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copy_of(short, tmp_path_factory.mktemp("longer"))
    succeed("train", "--resume", "--out", run, "--more-epochs", "3", short=True)
    return run


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


@pytest.mark.parametrize(("owner", "name", "when", "call"), STOPS)
def test_interrupted_it_goes_on_to_the_same_end(
    cli: Any,
    short: Path,
    longer: Path,
    tmp_path: Path,
    stop: Callable[..., None],
    owner: Any,
    name: str,
    when: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = copy_of(short, tmp_path)
    stop(owner, name, when, call)
    assert cli.resume(run, "--more-epochs", "3").code == 130
    monkeypatch.undo()
    ended = cli.resume(run, "--more-epochs", "3")  # as from the shell's history
    cli.assert_refused(ended, "--more-epochs adds to a finished run", f"train --resume --out {run}")
    assert cli.resume(run).code == 0
    assert_same(cli, run, longer)


def test_an_interrupted_preparation_leaves_a_run_that_finishes(
    cli: Any, short: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(short, tmp_path)
    stop(torchlasso.runs.folder, "remove", "after", 1)
    assert cli.resume(run, "--more-epochs", "3").code == 130
    monkeypatch.undo()
    assert cli.resume(run).code == 0
    assert_same(cli, run, short)


def test_zeros_of_a_hold_stay_and_the_rate_is_that_of_a_longer_training(cli: Any, short: Path, longer: Path) -> None:
    lines = cli.metrics(longer)
    assert cli.metrics(short, timed=False) == cli.metrics(longer, timed=False)[:6]
    assert {(line["switched"], line["lam"]) for line in lines[6:]} == {(0.0, 0.0)}
    assert lines[5]["lr"] < lines[6]["lr"]  # it rises to the tail of the schedule of 9 epochs
    assert lines[6]["lr"] > lines[7]["lr"] > lines[8]["lr"] == 0
    assert len(cli.metrics(longer / "dense")) == 9
    assert cli.summary(longer)["epochs"] == 9
    assert cli.summary(longer)["refit"] != cli.summary(short)["refit"]
    assert cli.summary(longer)["kept"]["counted"] > cli.summary(short)["kept"]["counted"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--recipe", "proximal"), id="proximal"),
        pytest.param(("--recipe", "latent", "--hold", "0"), id="latent"),
    ],
)
def test_a_target_without_a_hold_keeps_its_zeros(cli: Any, classes: Path, tmp_path: Path, options: Any) -> None:
    run = tmp_path / "run"
    assert cli.train(classes, run, "--sparsity", "0.7", "--epochs", "25", *options).code == 0
    before, met = weights(run), cli.summary(run)["sparsity"]
    assert cli.resume(run, "--more-epochs", "4").code == 0
    assert cli.summary(run)["sparsity"] == met
    assert all(((w == 0) == (before[name] == 0)).all() for name, w in weights(run).items() if w.dim() > 1)
    assert any((w != before[name]).any() for name, w in weights(run).items())
    assert {line["switched"] for line in cli.metrics(run)[25:]} == {0.0}


def test_patience_starts_anew(cli: Any, classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keep = ("--keep-best", "error", "--patience", "2", "--schedule", "constant", "--epochs", "60", "--lr", "0.2")
    assert cli.train(classes, run, *keep).code == 0
    stopped = cli.summary(run)
    assert stopped["kept"]["stopped_early"]
    assert stopped["epochs"] < 60
    assert cli.resume(run, "--more-epochs", "2").code == 0
    assert cli.summary(run)["epochs"] == stopped["epochs"] + 2


def test_files_made_of_the_former_model_go(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    made = {"compact.safetensors", "export/model.onnx", "bench.json"}
    (run / "export").mkdir()
    for name in made:
        (run / name).write_text("of the former model")
    assert cli.resume(run, "--more-epochs", "1").code == 0
    assert not made & set(cli.contents(run))


def test_the_page_says_it(cli: Any, longer: Path) -> None:
    text = re.sub("<[^>]*>", " ", (longer / "report.html").read_text())
    assert "torchlasso train --resume --out run --more-epochs 3" in text
    assert "3, after epoch 6" in text


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("--resume", "--more-epochs", "0"), ("--more-epochs", "at least 1", "0")),
        (("--more-epochs", "2"), ("--more-epochs", "give --resume --out")),
        (("--overwrite", "--more-epochs", "2"), ("--more-epochs", "give --resume")),
        (("--resume", "--more-epochs", "2", "--epochs", "9"), ("--epochs 9", "differs from the run's 3")),
    ],
)
def test_wrong_use_is_refused(cli: Any, copied: Callable[..., Path], given: Any, names: Any) -> None:
    run = copied()
    before = cli.contents(run)
    cli.assert_refused(cli("train", "--out", run, *given), *names)
    assert cli.contents(run) == before


def test_there_has_to_be_a_finished_run(cli: Any, stopped: Path, classes: Path, tmp_path: Path) -> None:
    ended = cli.resume(stopped, "--more-epochs", "2")
    cli.assert_refused(ended, "finished run", f"torchlasso train --resume --out {stopped}")
    ended = cli.train(classes, tmp_path / "none", "--resume", "--more-epochs", "2")
    cli.assert_refused(ended, "holds no run to resume")
    assert not (tmp_path / "none").exists()


def test_a_damaged_record_of_extensions_is_refused(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    config = run / "config.json"
    config.write_text(config.read_text().replace('"extensions": []', '"extensions": [{"after": 3, "epochs": -1}]'))
    cli.assert_refused(cli.resume(run), "config.json is damaged", "at least 1")
