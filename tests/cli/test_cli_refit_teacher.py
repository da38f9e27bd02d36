"""torchlasso train with --teacher, and with --refit after it: the teacher's outputs, and resumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import torchlasso as tl
import torchlasso.runs.train
from tests.support.command_line import succeed, weights
from torchlasso import data, models
from torchlasso.runs.folder import RunFolder
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

pytestmark = pytest.mark.slow

LEARNING = ("--teacher", "dense", "--refit", "2", "--lam", "0.05", "--validation", "0.3")


def by_hand(
    table: Path, epochs: int, lam: float, teacher: Callable[[Tensor], Tensor], *, classes: bool
) -> dict[str, Tensor]:
    """A run that learns from a teacher, too, which is given the rows as they are in the file."""
    dataset = data.load(str(table))
    kept, _ = data.holdout(dataset.y, 0.1, 0)
    x, y = data.Standardizer.fit(dataset.x[kept])(dataset.x[kept]), dataset.y[kept]
    with torch.no_grad():
        wanted = teacher(dataset.x[kept])
    if not classes:
        scale = data.Standardizer.fit(y)
        y, wanted = scale(y), scale(wanted)

    def term(outputs: Tensor, rows: Tensor) -> Tensor:
        if not classes:
            return ((outputs - wanted[rows]) ** 2).mean()
        p, q = (wanted[rows] / 2).softmax(1), (outputs / 2).softmax(1)
        return 4 * (p * (p / q).log()).sum(1).mean()

    torch.manual_seed(0)
    model = models.build("mlp", (5,), dataset.outputs, width=8, depth=1)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=lam), lr=0.05)
    loss = nn.functional.cross_entropy if classes else nn.functional.mse_loss
    trainer = Trainer(model, optimizer, loss, (x, y), Plan(epochs, batch_size=16), term)
    for _ in range(epochs):
        trainer.run_epoch()
    return dict(model.state_dict())


def teacher_of(run: Path) -> Callable[[Tensor], Tensor]:
    """A run's network with one hidden layer, from its two files alone."""
    inputs, w = json.loads((run / "config.json").read_text())["inputs"], weights(run)
    scale, of_targets = inputs["standardizer"], inputs["scale"]

    def outputs(x: Tensor) -> Tensor:
        x = (x - torch.tensor(scale["mean"])) / torch.tensor(scale["std"])
        hidden = nn.functional.linear(x, w["fc1.weight"], w["fc1.bias"]).relu()
        found = nn.functional.linear(hidden, w["head.weight"], w["head.bias"])
        return found if of_targets is None else data.Standardizer(**of_targets).undone(found)

    return outputs


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(w, expected[name], rtol=1e-3, atol=1e-4) for name, w in found.items())


@pytest.mark.parametrize("compare", ["", "dense", "loss-term,dense"])
def test_the_dense_model_is_trained_first_and_once_and_learnt_from(
    cli: Any, classes: Path, finished: Path, tmp_path: Path, compare: str
) -> None:
    run = tmp_path / "run"
    ended = cli.train(classes, run, "--teacher", "dense", *(["--compare", compare] if compare else []))
    assert (ended.code, ended.err) == (0, "")
    order = [line.split()[0] for line in ended.out.splitlines() if " epoch " in line]
    assert order == ["dense"] * 3 + ["torchlasso"] * 3 + ["loss-term"] * (3 if "loss-term" in compare else 0)
    summary = cli.summary(run)
    assert ("loss_term" in summary) == ("loss-term" in compare)
    plain = cli.summary(finished / "classes", timed=False)
    assert cli.summary(run, timed=False)["dense"] == plain["dense"]
    assert f"(dense {100 * plain['dense']['error']:.1f} %)" in ended.out
    assert near(weights(run), by_hand(classes, 3, 0.02, teacher_of(run / "dense"), classes=True))
    assert not near(weights(run), weights(finished / "classes"))


def test_numbers_are_learnt_from_a_teacher_too(cli: Any, amounts: Path, tmp_path: Path) -> None:
    assert cli.train(amounts, tmp_path / "run", "--teacher", "dense").code == 0
    teacher = teacher_of(tmp_path / "run" / "dense")
    assert near(weights(tmp_path / "run"), by_hand(amounts, 3, 0.02, teacher, classes=False))


def test_a_folder_of_the_dense_model_is_the_same_teacher(
    cli: Any, classes: Path, finished: Path, tmp_path: Path
) -> None:
    assert cli.train(classes, tmp_path / "first", "--teacher", "dense").code == 0
    assert cli.train(classes, tmp_path / "second", "--teacher", finished / "classes" / "dense").code == 0
    first, second = cli.contents(tmp_path / "first"), cli.contents(tmp_path / "second")
    assert first["model.safetensors"] == second["model.safetensors"]
    assert "dense" not in cli.summary(tmp_path / "second")


@pytest.mark.parametrize("kind", ["classes", "amounts"])
def test_a_teacher_of_another_seed_sees_the_rows_as_it_is_used_to(
    cli: Any, tables: Path, tmp_path: Path, kind: str
) -> None:
    """It was trained on other rows, so that it scales them otherwise; and it may be another network."""
    table = tables / f"{kind}.csv"
    assert (
        cli.train(table, tmp_path / "teacher", "--seed", "1", "--model", "mlp:width=6,depth=1", "--lam", "0").code == 0
    )
    assert cli.train(table, tmp_path / "run", "--teacher", tmp_path / "teacher").code == 0
    scales = [
        json.loads((tmp_path / name / "config.json").read_text())["inputs"]["standardizer"]
        for name in ("teacher", "run")
    ]
    assert scales[0] != scales[1]
    teacher = teacher_of(tmp_path / "teacher")
    assert near(weights(tmp_path / "run"), by_hand(table, 3, 0.02, teacher, classes=kind == "classes"))


@pytest.fixture
def others(tables: Path, finished: Path, tmp_path: Path) -> dict[str, Path]:
    """Runs that cannot be a teacher for the classes of classes.csv."""
    unfinished, damaged, unfit = (
        Path(shutil.copytree(finished / "classes", tmp_path / name)) for name in ("unfinished", "damaged", "unfit")
    )
    (unfinished / "model.safetensors").unlink()
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-20])
    shutil.copy(finished / "amounts" / "model.safetensors", unfit)
    runs = {"classes": finished / "classes", "amounts": finished / "amounts"}
    return {**runs, "unfinished": unfinished, "damaged": damaged, "unfit": unfit}


BAD = [
    ("--refit 0", "--refit", "0"),
    ("--refit -1", "--refit", "-1"),
    ("--refit 1.5", "--refit"),
    ("--refit 2 --validation 0", "--refit", "--validation"),
    ("--teacher nothing", "nothing"),
    ("--teacher ''", "--teacher"),
    ("--teacher {tables}", "holds no run"),
    ("--teacher {unfinished}", "unfinished", "no finished run"),
    ("--teacher {damaged}", "damaged", "model.safetensors"),
    ("--teacher {unfit}", "unfit", "model.safetensors"),
    ("--teacher {amounts}", "--teacher", "other data", "outputs"),
    ("--teacher {classes} --ignore e", "--teacher", "other data", "shape"),
    ("--teacher {own}", "--teacher", "--overwrite"),
]


@pytest.mark.parametrize(("given", "names"), [(b[0], b[1:]) for b in BAD], ids=[b[0] for b in BAD])
def test_invalid_options_are_refused(
    cli: Any,
    copied: Callable[..., Path],
    classes: Path,
    tables: Path,
    others: dict[str, Path],
    given: str,
    names: tuple[str, ...],
) -> None:
    """With --overwrite, the existing run stays, even if it is the teacher itself."""
    run = copied()
    before = cli.contents(run)
    words = ["" if word == "''" else word.format(tables=tables, own=run, **others) for word in given.split(" ")]
    cli.assert_refused(cli.train(classes, run, "--overwrite", *words), *names)
    assert cli.contents(run) == before


@pytest.fixture(scope="module")
def learnt(amounts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a teacher and a refit that nobody stopped."""
    run = tmp_path_factory.mktemp("learnt") / "run"
    options = ["--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--epochs", "3", *LEARNING]
    succeed("train", "--data", amounts, "--out", run, *options, short=True)
    return run


MOMENTS = [
    # 18 steps and 3 checkpoints of the dense model, as many of the run, 12 and 2 of the refit
    pytest.param(LambdaLR, "step", "before", 10, id="in the training of the teacher"),
    pytest.param(RunFolder, "write_summary", "before", 1, id="the teacher has no summary"),
    pytest.param(RunFolder, "write_summary", "after", 1, id="the teacher is done"),
    pytest.param(LambdaLR, "step", "before", 25, id="in the training"),
    pytest.param(RunFolder, "write_checkpoint", "after", 6, id="the training is over"),
    pytest.param(RunFolder, "start", "before", 3, id="the refit has no folder"),
    pytest.param(RunFolder, "start", "after", 3, id="the refit has only its configuration"),
    pytest.param(LambdaLR, "step", "before", 35, id="in the first epoch of the refit"),
    pytest.param(RunFolder, "write_metrics", "after", 7, id="metrics of the refit are written, its checkpoint is not"),
    pytest.param(RunFolder, "write_checkpoint", "after", 7, id="checkpoint of the refit is written"),
    pytest.param(LambdaLR, "step", "before", 40, id="in the second epoch of the refit"),
    pytest.param(RunFolder, "write_checkpoint", "after", 8, id="the refit is over"),
    pytest.param(RunFolder, "write_model", "before", 2, id="no model yet"),
    pytest.param(RunFolder, "write_model", "after", 2, id="the model is written"),
    pytest.param(torchlasso.runs.train, "write_page", "before", 1, id="no page"),
    pytest.param(RunFolder, "write_summary", "before", 2, id="no summary"),
    pytest.param(RunFolder, "write_summary", "after", 2, id="all written"),
    *(pytest.param(os, "fsync", "before", n, id=f"within file {n}") for n in (8, 18, 19, 20)),
]


@pytest.mark.parametrize(("owner", "name", "when", "call"), MOMENTS)
def test_an_interrupted_run_resumes(
    cli: Any,
    amounts: Path,
    tmp_path: Path,
    learnt: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    when: str,
    call: int,
) -> None:
    """The teacher is not trained again, and the refit starts from the trained model."""
    stop(owner, name, when, call)
    ended = cli.train(amounts, tmp_path / "run", *LEARNING)
    monkeypatch.undo()
    assert ended.code == 130
    ended = cli.resume(tmp_path / "run")
    assert (ended.code, ended.err) == (0, "")
    left, right = cli.contents(tmp_path / "run"), cli.contents(learnt)
    assert set(left) == set(right)
    for file in ("model.safetensors", "dense/model.safetensors", "config.json", "refit/config.json"):
        assert left[file] == right[file], file
    for part in (".", "dense", "refit"):
        assert cli.metrics(tmp_path / "run" / part, timed=False) == cli.metrics(learnt / part, timed=False), part
    assert cli.summary(tmp_path / "run", timed=False) == cli.summary(learnt, timed=False)
