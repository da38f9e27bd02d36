"""torchlasso select on bad input: one line that names the thing, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.selecting import FAST, NAMES, made_genes, made_patients, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def genes() -> dict[str, Any]:
    return made_genes()


@pytest.fixture(scope="module")
def table(genes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("genes") / "genes.csv", genes)


@pytest.fixture(scope="module")
def patients() -> dict[str, Any]:
    return made_patients()


def no_event(columns: dict[str, Any]) -> None:
    columns["relapse"] = [0] * 150


def three_events(columns: dict[str, Any]) -> None:
    columns["relapse"] = [2, *columns["relapse"][1:]]


def words(columns: dict[str, Any]) -> None:
    columns["relapse"] = ["yes" if each else "no" for each in columns["relapse"]]


def a_negative_time(columns: dict[str, Any]) -> None:
    columns["months"] = ["-1.5", *columns["months"][1:]]


def one_event(columns: dict[str, Any]) -> None:
    columns["relapse"] = [1] + [0] * 149


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (no_event, ["column 'relapse' is 0 everywhere", "need an event"]),
        (three_events, ["columns 'relapse' and 'months'", "must be 0 or 1", "got 2"]),
        (words, ["column 'relapse' must hold 0 or 1", "an event; got"]),
        (a_negative_time, ["columns 'relapse' and 'months'", "at least 0", "got -1.5"]),
        (one_event, ["two rows with an event at least", "there is 1"]),
    ],
)
def test_bad_survival(
    cli: Any, patients: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], names: list[str]
) -> None:
    columns = dict(patients)
    change(columns)
    path, out = write(tmp_path / "bad.csv", columns), tmp_path / "out"
    cli.assert_refused(
        cli("select", "--data", path, "--time", "months", "--event", "relapse", *FAST, "--out", out), *names
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--features", "0"], ["--features must be at least 1", "got 0"]),
        (["--features", "11"], ["--features 11", "10 features that are neither constant nor copies", "of 12"]),
        (["--features", "2", "--fdr", "0.1"], ["--features and --fdr exclude each other"]),
        (["--fdr", "0"], ["--fdr must be a share", "got 0"]),
        (["--fdr", "2"], ["--fdr must be a share", "got 2"]),
        (["--folds", "1"], ["--folds must be at least 2"]),
        (["--pairs", "0"], ["--pairs must be at least 1"]),
        (["--jobs", "0"], ["--jobs must be at least 1; got 0"]),
        (["--hidden", "0"], ["--hidden must be widths of at least 1"]),
        (["--hidden", "wide"], ["--hidden takes numbers separated by commas, as in 64,32"]),
        (["--seed", "-1"], ["--seed must be at least 0"]),
        (["--label", "kind"], ["no column 'kind'"]),
        (["--group", "cage"], ["no column 'cage' for groups"]),
        (["--weight", "count"], ["no column 'count' for the weights"]),
        (["--weight", "animal"], ["the column 'animal' cannot be both the weights and something else"]),
        (["--weight", "label"], ["the column 'label' cannot be both the weights and something else"]),
        (["--weight", "gene 2"], ["column 'gene 2' has -", "a weight is a finite number, at least 0"]),
        (["--time", "gene 1"], ["--time needs --event"]),
        (["--event", "label"], ["--event needs --time"]),
        (["--time", "gene 1", "--event", "gene 2", "--label", "label"], ["--label and --time exclude each other"]),
        (["--time", "gene 1", "--event", "death", "--ignore", "label"], ["no column 'death'"]),
        (["--time", "days", "--event", "gene 1", "--ignore", "label"], ["no column 'days'"]),
    ],
)
def test_bad_options(cli: Any, table: Path, tmp_path: Path, options: list[str], names: list[str]) -> None:
    out = tmp_path / "out"
    group = [] if "--group" in options else ["--group", "animal"]
    cli.assert_refused(cli("select", "--data", table, *group, "--out", out, *options), *names)
    assert not out.exists()


def one_class(columns: dict[str, Any]) -> None:
    columns["label"] = ["ill"] * 120


def one_row_of_a_class(columns: dict[str, Any]) -> None:
    columns["label"] = ["ill"] * 119 + ["well"]


def one_animal(columns: dict[str, Any]) -> None:
    columns["animal"] = ["m1"] * 120


def text(columns: dict[str, Any]) -> None:
    columns["gene 4"] = ["high", *columns["gene 4"][1:]]


def nothing_but_constants(columns: dict[str, Any]) -> None:
    columns.update({name: ["1"] * 120 for name in NAMES})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (one_class, ["all labels are 'ill'", "at least 2 classes"]),
        (one_row_of_a_class, ["two groups of the class 'well' at least", "there is 1"]),
        (one_animal, ["two groups of the class", "there is 1"]),
        (text, ["column 'gene 4' has 'high' in row 0", "numbers in most other rows"]),
        (nothing_but_constants, ["all 12 columns are constant"]),
    ],
)
def test_bad_tables(
    cli: Any, genes: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], names: list[str]
) -> None:
    columns = dict(genes)
    change(columns)
    path = write(tmp_path / "bad.csv", columns)
    ended = cli("select", "--data", path, "--group", "animal", "--features", "2", *FAST, "--out", tmp_path / "out")
    cli.assert_refused(ended, *names)


def test_images_are_not_a_table(cli: Any, tmp_path: Path) -> None:
    cli.assert_refused(cli("select", "--data", "digits", "--out", tmp_path / "out"), "(1, 8, 8)", "needs a table")
