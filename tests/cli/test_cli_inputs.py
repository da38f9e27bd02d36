"""torchlasso train and path over inputs: whole features of a table, or pixels, live or leave, and have names."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import succeed, weights
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.options import LOSS_TERM
from torchlasso.runs.rows import read_data_again

pytestmark = pytest.mark.slow

NAMES = tuple(f"gene {i}" for i in range(12))
OPTIONS = ("--over", "inputs", "--model", "mlp:width=16,depth=1", "--batch-size", "32", "--epochs", "30")
OPTIONS += ("--lr", "0.01")


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve features, of which "gene 2" and "gene 7" decide the class."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, len(NAMES)))
    path = tmp_path_factory.mktemp("genes") / "genes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES, "label"])
        kinds = np.where(x[:, 2] - x[:, 7] > 0, "ill", "well")
        writer.writerows([*(f"{value:.5f}" for value in row), kind] for row, kind in zip(x, kinds, strict=True))
    return path


@pytest.fixture(scope="module")
def two(genes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run towards two features; not to be written to."""
    out = tmp_path_factory.mktemp("inputs") / "run"
    succeed("train", "--data", genes, "--out", out, *OPTIONS, "--features", "2", "--compare", "loss-term")
    return out


def test_a_number_of_features_is_met_and_the_report_names_them(cli: Any, two: Path) -> None:
    ended = cli("report", two)
    assert ended.code == 0
    [line] = [line for line in ended.out.splitlines() if line.startswith("2 of 12 features are read: ")]
    assert sorted(line.partition(": ")[2].rstrip(".").split(", ")) == ["gene 2", "gene 7"]
    found = json.loads(cli("report", two, "--json").out)
    assert sorted(found["features_read"]) == ["gene 2", "gene 7"]
    assert found["live_inputs"] == 2
    assert found["target_met"]
    first = next(w for w in weights(two).values() if w.dim() == 2)
    assert np.flatnonzero((first != 0).any(dim=0).numpy()).tolist() == [2, 7]


@pytest.mark.usefixtures("whole_pages")
def test_the_page_names_the_features(cli: Any, two: Path) -> None:
    assert cli("report", two, "--html").code == 0
    page = (two / "report.html").read_text()
    assert "2 of 12 inputs can change the outputs" in page
    assert "gene 7" in page
    assert "Not read: gene 0, gene 1, gene 3" in page


def test_the_loss_term_has_the_same_weight_decay(two: Path) -> None:
    """Without it, the comparison would minimise another objective."""
    experiment = RunFolder(two).read_experiment()
    experiment = replace(experiment, options=replace(experiment.options, features=None))  # λ is what it is
    rows = read_data_again(experiment.options, experiment.inputs).train
    ours = experiment.trainer(experiment.build_model(), rows).trainer.optimizer
    compared = experiment.compared(LOSS_TERM, experiment.build_model(), rows, experiment.options.lam).trainer.optimizer
    decays = [[group["weight_decay"] for group in optimizer.param_groups] for optimizer in (ours, compared)]
    assert max(decays[0]) > 0
    assert decays[0] == decays[1]


def test_the_features_of_images_are_pixels(cli: Any, tmp_path: Path) -> None:
    options = ("--over", "inputs", "--model", "mlp:width=32,depth=1", "--epochs", "5", "--features", "20")
    ended = cli("train", "--data", "digits", "--out", tmp_path / "run", *options)
    assert (ended.code, ended.err) == (0, "")
    assert cli.summary(tmp_path / "run")["live_inputs"] == 20
    found = json.loads(cli("report", tmp_path / "run", "--json").out)
    assert found["features_read"] is None  # pixels have places, not names


def test_a_path_over_inputs(cli: Any, genes: Path, tmp_path: Path) -> None:
    more = ("--points", "4", "--epochs", "10", "--epochs-each", "5", "--sparsest", "0.85")
    ended = cli("path", "--data", genes, "--out", tmp_path / "run", *OPTIONS, *more)
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(cli("report", tmp_path / "run", "--json").out)
    assert len(found["features_read"]) == found["live_inputs"] <= 12
    assert {"gene 2", "gene 7"} <= set(found["features_read"])


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--features", "few"], ["--features", "a whole number", "or a share", "few"]),
        (["--features", "1.5"], ["--features", "a whole number", "or a share", "1.5"]),
        (["--over", "inputs", "--features", "0"], ["--features", "at least 1", "got 0"]),
        (["--over", "inputs", "--features", "5"], ["--features 5", "there are 5"]),
        (["--over", "rows", "--features", "2"], ["--features 2", "units"]),
        (["--over", "inputs", "--features", "2", "--sparsity", "0.5"], ["--sparsity and --features exclude each"]),
        (["--over", "inputs", "--flops", "0.5"], ["--flops does not suit --over inputs"]),
        (["--over", "inputs:keep=3"], ["'inputs' has no options", "'keep'"]),
        (["--over", "input"], ["did you mean 'inputs'?"]),
    ],
)
def test_bad_input(cli: Any, classes: Path, tmp_path: Path, more: list[str], names: list[str]) -> None:
    cli.assert_refused(cli.train(classes, tmp_path / "run", *more), *names)
    assert not (tmp_path / "run").exists()


def test_a_convolution_reads_grey_images_as_one_feature(cli: Any, tmp_path: Path) -> None:
    ended = cli("train", "--data", "digits", "--out", tmp_path / "run", "--over", "inputs")
    cli.assert_refused(ended, "--over inputs", "(1, 8, 8)", "one feature", "mlp")
