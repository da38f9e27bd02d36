"""What was read is said: on the screen, in the summary and on the page; and rows are divided as was asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SMALL = ("--model", "mlp:width=8,depth=1", "--epochs", "3", "--batch-size", "16", "--lam", "0.02", "--lr", "0.02")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows of 40 people, with gaps, categories, names and dates."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("people") / "people.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["person", "name", "age", "town", "seen", "price", "ill"])
        for i in range(120):
            age, town = int(rng.integers(20, 80)), ["Ulm", "Bonn", ""][i % 3]
            seen = f"2021-{1 + i % 12:02}-03"
            writer.writerow(
                [f"p{i // 3}", f"Name {i}", "" if i % 10 == 0 else age, town, seen, 1000 * age + i, age > 50]
            )
    return path


def test_what_was_read_is_said(cli: Any, people: Path, tmp_path: Path, whole_pages: None) -> None:
    run = tmp_path / "run"
    ended = cli("train", "--data", people, "--label", "ill", "--group", "person", *SMALL, "--out", run)
    assert (ended.code, ended.err) == (0, "")
    first = ended.out.splitlines()[0]
    assert first.startswith("people.csv: ")
    assert "2 classes" in first
    card = cli.summary(run)["data"]
    assert [part["name"] for part in card["parts"]] == ["train", "validation", "test"]
    assert sum(part["rows"] for part in card["parts"]) == 120
    assert all(part["rows"] % 3 == 0 for part in card["parts"])  # whole people
    assert "age" in card["gaps"]
    assert "town" in card["gaps"]
    assert card["encoded"]["town"] == 3
    page = (run / "report.html").read_text()
    for text in ("<h2>Data</h2>", "whole groups, seed 0", "Gaps that were filled", "town (3)"):
        assert text in page


def test_rows_with_new_gaps_and_categories_are_predicted_and_it_is_said(cli: Any, people: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--label", "ill", "--group", "person", "--ignore", "name")
    assert cli("train", "--data", people, *options, *SMALL, "--out", run).code == 0
    (tmp_path / "new.csv").write_text("age,town,seen,price\n30,Rome,2021-02-03,\n,Ulm,2021-02-03,5\n")
    ended = cli("predict", run, "--data", tmp_path / "new.csv")
    assert ended.code == 0
    assert ended.out.count("\n") == 3
    said = ended.err.replace("\n", "")
    assert "column 'town' has values in 1 row that are not in training ('Rome')" in said
    assert "gaps in columns that have none in training (price 1)" in said


def test_a_number_is_learnt_and_predicted_in_its_own_units(cli: Any, people: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--label", "price", "--task", "regression", "--ignore", "person,name,ill", "--model", "mlp:depth=0")
    trained = cli("train", "--data", people, *options, "--epochs", "60", "--lr", "0.05", "--lam", "1e-3", "--out", run)
    assert trained.code == 0
    ended = cli("predict", run, "--data", people)
    found = np.array([float(line.split(",")[1]) for line in ended.out.splitlines()[1:]])
    with people.open() as file:
        truth = np.array([float(row["price"]) for row in csv.DictReader(file)])
    has_age = np.arange(120) % 10 != 0
    assert np.corrcoef(found[has_age], truth[has_age])[0, 1] > 0.98
    assert abs(found[has_age].mean() - truth[has_age].mean()) < 2000


def test_the_columns_of_a_category_are_one_feature(cli: Any, people: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--label", "ill", "--ignore", "name,person,price", "--over", "inputs", "--features", "1")
    assert cli("train", "--data", people, *options, *SMALL[:2], "--epochs", "10", "--out", run).code == 0
    read = json.loads(cli("report", run, "--json").out)["features_read"]
    columns = {name.split("=")[0].removesuffix(" is missing").split(":")[0] for name in read}
    assert len(columns) == 1


def test_folds_of_a_path_have_whole_groups(cli: Any, people: Path, tmp_path: Path) -> None:
    options = ("--label", "ill", "--group", "person", "--points", "2", "--epochs-each", "1", "--lams", "0.01,0.1")
    ended = cli("path", "--data", people, *options, *SMALL, "--folds", "41", "--out", tmp_path / "run")
    cli.assert_refused(ended, "folds must be from 2 to the number of groups")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--validation", "1.5"), ("--validation", "share")),
        (("--validation", "nowhere.csv"), ("nowhere.csv", "neither a share")),
        (("--test", "0"), ("--test", "above 0")),
        (("--task", "sorting"), ("sorting", "classification", "regression")),
        (("--group", "person", "--time-order", "seen"), ("--group", "--time-order", "exclude")),
        (("--group", "persons"), ("'persons'", "there are 'person'")),
        (("--label", "price"), ("classification", "regression")),
        (("--label", "ill,price"), ("'ill'",)),
        (("--categories", "towns"), ("'towns'",)),
        (("--ignore", "name,persons"), ("'persons' to ignore", "'age'")),
        (("--size", "8"), ("--size is for images",)),
        (("--skip-corrupt", "0.1"), ("--skip-corrupt is for images",)),
        (("--max-length", "5"), ("--max-length is for texts",)),
    ],
)
def test_bad_options(cli: Any, people: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    given = ("--label", "ill", *options) if "--label" not in options else options
    cli.assert_refused(cli("train", "--data", people, *given, *SMALL, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour images of several sizes in the folders of two classes; one is no image."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for i in range(60):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 100, (8 + i % 3, 8, 3), dtype=np.uint8) + np.uint8(100 * (i % 2))
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i:02}.png")
    (folder / "a" / "bad.png").write_bytes(b"no image")
    return folder


def test_images_of_any_size_are_trained_on_and_predicted(cli: Any, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--size", "8", "--resize", "crop", "--skip-corrupt", "0.05", *SMALL, "--input-dropout", "0.1")
    ended = cli("train", "--data", pictures, *options, "--augment", "crop,flip", "--out", run)
    assert (ended.code, ended.err) == (0, "")
    assert "images of 8×8 pixels, 3 channels; 2 classes" in ended.out
    assert "Images of 8×8 to 10×8 pixels are brought to 8×8 (crop)." in ended.out
    assert "1 image is unreadable and left out" in ended.out.replace("\n", " ")
    ended = cli("predict", run, "--data", pictures / "b")
    assert ended.code == 0
    assert ended.out.count("\n") == 31


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("with --size, such as --size 224",)),
        (("--size", "large"), ("--size", "224")),
        (("--size", "8", "--resize", "fold"), ("fold", "pad")),
        (("--size", "8"), ("bad.png", "not a readable image")),
        (("--size", "8", "--skip-corrupt", "1.5"), ("--skip-corrupt", "share")),
    ],
)
def test_images_that_are_refused(
    cli: Any, pictures: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    cli.assert_refused(cli("train", "--data", pictures, *options, *SMALL, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()
