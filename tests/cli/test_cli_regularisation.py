"""train and path with --input-dropout, --label-smoothing and --augment."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from tests.support.command_line import OPTIONS
from torchlasso.diagnostics.stationarity import stationarity
from torchlasso.path import Recipe
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.options import Options
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.rows import read_data
from torchlasso.training import InputDropout, RandomCrop, RandomFlip, Regularisation
from torchlasso.training.evaluation import evaluate, full_gradient

ALL = ("--input-dropout", "0.2", "--label-smoothing", "0.1", "--augment", "crop:padding=2,flip")
WORDS = ["input dropout 0.2", "label smoothing 0.1", "augmentation crop:padding=2,flip"]
PARTS = ("", "dense/", "loss-term/")
NOISE = """
import torch


def shaken(x):
    return x + 0.3 * torch.randn_like(x)


def halved(x):
    return x[:1]
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise, dark in the upper or in the lower half."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.uniform(0.2, 1.0, size=(80, 2, 6, 6)).astype(np.float32)
    for row, label in zip(x, y, strict=True):
        row[:, 3 * label : 3 * label + 3] = 0
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture
def noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a user's augmentations, in the current folder."""
    (tmp_path / "augmentations_of_ones_own.py").write_text(NOISE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "augmentations_of_ones_own"


def same_weights(cli: Any, left: Path, right: Path, parts: tuple[str, ...] = PARTS) -> None:
    mine, theirs = cli.contents(left), cli.contents(right)
    for part in parts:
        assert mine[f"{part}model.safetensors"] == theirs[f"{part}model.safetensors"], part
        assert cli.metrics(left / part, timed=False) == cli.metrics(right / part, timed=False)


@pytest.mark.parametrize("step", [13, 26])  # in the second epoch of the run and of the refit
def test_an_interrupted_run_resumes_to_the_bit(
    cli: Any, images: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    options = [*ALL, "--compare", "dense,loss-term", "--refit", "2"]
    assert cli.train(images, tmp_path / "whole", *options).code == 0
    stop(LambdaLR, "step", "before", step)
    assert cli.train(images, tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    assert cli.resume(tmp_path / "run").code == 0
    same_weights(cli, tmp_path / "run", tmp_path / "whole")
    assert cli.metrics(tmp_path / "run" / "refit", timed=False) == cli.metrics(
        tmp_path / "whole" / "refit", timed=False
    )


@pytest.mark.slow
def test_a_path_resumes_to_the_bit(
    cli: Any, images: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*OPTIONS[:6], *ALL, "--lams", "1e-3,0.1", "--points", "3", "--epochs", "2"]
    assert cli("path", "--data", images, "--out", tmp_path / "whole", *options).code == 0
    stop(LambdaLR, "step", "before", 20)
    assert cli("path", "--data", images, "--out", tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    assert cli("path", "--resume", "--out", tmp_path / "run").code == 0
    left, right = cli.contents(tmp_path / "run"), cli.contents(tmp_path / "whole")
    names = [name for name in right if name.startswith("points/")]
    assert len(names) == 3
    assert all(left[name] == right[name] for name in names)
    assert cli.summary(tmp_path / "run")["regularisation"] == WORDS


def test_a_run_says_how_it_was_regularised(cli: Any, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = cli.train(images, run, *ALL, "--compare", "dense")
    assert (ended.code, ended.err) == (0, "")
    assert f"Trained with {', '.join(WORDS)}.\n" in ended.out
    summary, page = cli.summary(run), (run / "report.html").read_text()
    assert summary["regularisation"] == summary["dense"]["regularisation"] == WORDS
    assert f"Trained with {', '.join(WORDS)}." in page
    assert "--input-dropout 0.2 --label-smoothing 0.1 --augment crop:padding=2,flip" in page
    experiment = RunFolder(run).read_experiment()
    # what is reported is neither smoothed nor dropped
    model, rows = experiment.build_model(), read_data(experiment.options)[1]
    model.load_state_dict(RunFolder(run).read_model()[0])
    assert summary["loss"] == evaluate(model, torch.nn.functional.cross_entropy, *rows.test).loss
    smoothed = partial(torch.nn.functional.cross_entropy, label_smoothing=0.1)  # as it was minimised
    full_gradient(model, smoothed, *rows.train)
    far = stationarity(experiment.groups(model, summary["lam"]))
    assert (far.max, far.mean) == pytest.approx((summary["stationarity"]["max"], summary["stationarity"]["mean"]))


def test_every_network_that_is_compared_gets_the_same(images: Path) -> None:
    options = Options(
        str(images), model="mlp:width=8,depth=1", input_dropout=0.2, label_smoothing=0.1, augment=("crop",), refit=1
    )
    inputs, rows = read_data(options)
    experiment, model = Experiment(options, inputs), Experiment(options, inputs).build_model()
    recipe = experiment.recipe(PathOptions(), rows.train)
    trainings = [experiment.trainer(model, rows.train), experiment.refit(model, rows.train)]
    trainings += [experiment.compared(name, model, rows.train, 0.1) for name in ("dense", "loss-term")]
    found: list[Regularisation] = [recipe.regularisation, *(each.trainer.regularisation for each in trainings)]
    for each in found:
        crop, dropout = each.transforms
        assert isinstance(crop, RandomCrop)
        assert isinstance(dropout, InputDropout)
        assert torch.equal(dropout.background, crop.background)
        assert torch.allclose(inputs.standardizer.undone(dropout.background), torch.zeros(1, 2, 1, 1), atol=1e-6)
        assert each.loss is not None
    assert isinstance(recipe, Recipe)


def test_each_option_changes_the_weights_and_is_off_by_default(cli: Any, images: Path, tmp_path: Path) -> None:
    runs = {"off": (), "zeros": ("--input-dropout", "0", "--label-smoothing", "0", "--augment", "")}
    runs |= {"dropout": ALL[:2], "smoothing": ALL[2:4], "crop": ("--augment", "crop"), "flip": ("--augment", "flip")}
    for name, options in runs.items():
        assert cli.train(images, tmp_path / name, *options).code == 0
    same_weights(cli, tmp_path / "off", tmp_path / "zeros", ("",))
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in runs}
    assert len(set(weights.values())) == len(runs) - 1
    assert cli.summary(tmp_path / "off")["regularisation"] == []


def test_what_does_not_fit_is_refused(
    cli: Any, images: Path, classes: Path, amounts: Path, tmp_path: Path, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for data, options, *names in (
        (images, ("--input-dropout", "1"), "--input-dropout must be at least 0 and below 1; got 1.0"),
        (images, ("--label-smoothing", "-0.1"), "--label-smoothing must be at least 0 and below 1; got -0.1"),
        (amounts, ("--label-smoothing", "0.1"), "--label-smoothing needs classes", "the targets here are numbers"),
        (amounts, ("--label-smoothing", "0.1", "--loss", "mse"), "needs classes", "the loss here is mse"),
        (classes, ("--label-smoothing", "0.1", "--loss", f"{noise}:shaken"), f"the loss here is {noise}:shaken"),
        (classes, ("--augment", "crop"), "'crop' needs images, (n, channels, height, width)"),
        (classes, ("--augment", "flip"), "'flip' needs images, (n, channels, height, width)"),
        (images, ("--augment", "crp"), "unknown augmentation 'crp'; did you mean 'crop'? There are: crop, flip"),
        (images, ("--augment", "crop:pad=2"), "augmentation 'crop': unknown option 'pad'", "There are: padding"),
        (images, ("--augment", "crop:padding=7"), "padding of the augmentation 'crop' must be at most 6; got 7"),
        (images, ("--augment", "flip:p=1"), "augmentation 'flip' has no options; got 'p'"),
        (images, ("--augment", "nowhere.at_all:crop"), "no module 'nowhere'"),
        (images, ("--augment", f"{noise}:halved"), "a transform must return a batch like a tensor of shape"),
    ):
        cli.assert_refused(cli.train(data, run, *options), *names)
        assert not run.exists()

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("torchlasso._core.extras.importlib.import_module", missing)
    cli.assert_refused(
        cli.train(images, run, "--augment", "crop"), "'crop' needs kornia: pip install 'torchlasso[augme"
    )


def test_a_function_is_an_augmentation_of_any_data(
    cli: Any, classes: Path, tmp_path: Path, noise: str, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--augment", f"{noise}:shaken"]
    assert cli.train(classes, tmp_path / "whole", *options).code == 0
    with monkeypatch.context():
        stop(LambdaLR, "step", "before", 13)
        assert cli.train(classes, tmp_path / "run", *options).code == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cli.assert_refused(cli.resume(tmp_path / "run"), "config.json names code", f"--allow-code {noise}:shaken")
    assert cli.resume(tmp_path / "run", "--allow-code", f"{noise}:shaken").code == 0
    same_weights(cli, tmp_path / "run", tmp_path / "whole", ("",))
    assert cli("report", tmp_path / "run").code == 0  # which does not use it


def test_runs_of_earlier_versions_read(cli: Any, copied: Callable[[str], Path]) -> None:
    run = copied("classes")
    for part in (run, run / "dense", run / "loss-term"):
        config = json.loads((part / "config.json").read_text())
        for name in ("input_dropout", "label_smoothing", "augment"):
            del config["options"][name]
        (part / "config.json").write_text(json.dumps(config))
        summary = json.loads((part / "summary.json").read_text())
        for each in (summary, *(summary[name] for name in ("dense", "loss_term") if name in summary)):
            del each["regularisation"]
        (part / "summary.json").write_text(json.dumps(summary))
    assert cli("report", run).code == 0
    assert RunFolder(run).read_experiment().options.input_dropout == 0
    assert RunFolder(run).read_summary().regularisation == ()
    assert cli.resume(run).code == 0


def test_a_flip_of_rows_as_they_are_kept(images: Path) -> None:
    _, rows = read_data(Options(str(images), augment=("flip",)))
    x = rows.train[0]
    torch.manual_seed(0)
    flipped = RandomFlip()(x)
    assert torch.equal(torch.where((flipped == x).flatten(1).all(1).view(-1, 1, 1, 1), x, x.flip(-1)), flipped)
