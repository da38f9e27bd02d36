"""The quality of a run's model: its figures in the summary and on the screen, and the warnings that come from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.optim.lr_scheduler import LambdaLR

from torchlasso.runs.folder import RunFolder
from torchlasso.runs.quality import MEASURES, Judge, Score
from torchlasso.runs.quality.tables import interval
from torchlasso.runs.rows import read_data

pytestmark = pytest.mark.slow

BALANCED = ("--class-weight", "balanced")
OF_CLASSES = {"error", "balanced_accuracy", "macro_f1", "auc", "log_loss", "calibration_error"}


def rare(folder: Path, *, known: float) -> Path:
    """A data set in which one of 20 rows is of the second class; ``known``: how far the classes are apart."""
    rng = np.random.default_rng(0)
    y = (np.arange(900) % 20 == 0).astype(np.int64)
    x = rng.normal(size=(900, 4))
    x[:, 0] += known * y
    np.savez(folder / "rare.npz", x=x[:600], y=y[:600], x_test=x[600:], y_test=y[600:])
    return folder / "rare.npz"


def test_the_figures_are_in_the_summary_of_each_run(cli: Any, finished: Path) -> None:
    summary = cli.summary(finished / "classes")
    for part in (summary, summary["dense"], summary["loss_term"]):
        assert part["test"]["scores"].keys() == part["validation"]["scores"].keys() == OF_CLASSES
        assert part["test"]["scores"]["error"]["value"] == pytest.approx(part["error"])
        assert part["balanced_error"] == pytest.approx(1 - part["test"]["scores"]["balanced_accuracy"]["value"])
        assert 0 < part["gap"] <= 1
    assert [each["name"] for each in summary["test"]["classes"]] == ["high", "low", "middle"]
    assert cli.metrics(finished / "classes")[-1]["val_error"] == summary["validation"]["scores"]["error"]["value"]
    amounts = cli.summary(finished / "amounts")
    assert amounts["test"]["scores"].keys() == {"r2", "rmse", "mae"}
    [deviation] = json.loads((finished / "amounts" / "config.json").read_text())["inputs"]["scale"]["std"]
    loss = (amounts["test"]["scores"]["rmse"]["value"] / deviation) ** 2  # figures are in the units of the targets
    assert loss == pytest.approx(amounts["loss"], rel=1e-5)
    assert amounts["balanced_error"] is None


def test_the_screen_has_the_figures(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run")
    for key, found in cli.summary(tmp_path / "run")["test"]["scores"].items():
        lines = [each for each in ended.out.splitlines() if each.startswith(f"{MEASURES[key].title}  ")]
        [line] = [each for each in lines if " to " in each or "–" in each]
        assert MEASURES[key].shown(found["value"]) in line
        assert interval(MEASURES[key], Score(**found)) in line


def test_several_targets_have_figures_of_their_own(cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{a - b:.4f},{100 + 50 * c + rng.normal():.4f}" for a, b, c in x]
    (tmp_path / "two.csv").write_text("\n".join(["a,b,c,near,far", *lines]))
    given = ("--label", "near,far", "--epochs", "30", "--keep-best", "rmse")
    assert cli.train(tmp_path / "two.csv", tmp_path / "run", *given).code == 0
    test = cli.summary(tmp_path / "run")["test"]
    near, far = test["targets"]
    assert (near["name"], far["name"]) == ("near", "far")
    for key, score in test["scores"].items():
        assert score["value"] == pytest.approx((near["scores"][key]["value"] + far["scores"][key]["value"]) / 2)
    assert near["scores"]["rmse"]["constant"] < 2 < 40 < far["scores"]["rmse"]["constant"]
    assert test["constant"][1] == pytest.approx(100, abs=10)


def test_without_validation_rows_there_is_no_gap(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "run", "--validation", "0").code == 0
    summary = cli.summary(tmp_path / "run")
    assert summary["validation"] is summary["gap"] is None
    assert summary["test"] is not None


@pytest.mark.usefixtures("whole_pages")  # the run is shared with tests of pages
def test_the_chosen_point_of_a_path_has_the_same_figures(cli: Any, run_of: Callable[[str], Path]) -> None:
    summary = cli.summary(run_of("path"))
    assert summary["test"]["scores"].keys() == OF_CLASSES
    assert summary["test"]["scores"]["error"]["value"] == pytest.approx(summary["error"])


def test_without_scikit_learn_a_run_says_that_figures_are_missing(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "is_possible", lambda: False)
    ended = cli.train(classes, tmp_path / "run")
    assert ended.code == 0
    assert "More figures, with intervals, need scikit-learn: pip install 'torchlasso[sklearn]'." in ended.out
    summary = cli.summary(tmp_path / "run")
    assert summary["test"] is None
    assert summary["balanced_error"] is not None


@pytest.mark.parametrize("command", ["train", "path"])
def test_the_answer_no_to_every_row_is_named(cli: Any, tmp_path: Path, command: str) -> None:
    more = ("--points", "2", "--lams", "0.01,0.1", "--collapse", "1") if command == "path" else ()
    given = (
        "--data",
        rare(tmp_path, known=0.0),
        "--model",
        "mlp:width=8,depth=1",
        "--epochs",
        "12",
        "--lr",
        "0.01",
        *more,
    )
    ended = cli(command, *given, "--out", tmp_path / "run", "--strict")
    assert ended.code == 3
    summary = cli.summary(tmp_path / "run")
    assert summary["error"] == 0.05
    [sentence] = [each for each in summary["warnings"] if "guessing" in each]
    assert "its balanced accuracy on the test rows is 50.0 %, and one answer for all rows has 50.0 %" in sentence


def test_a_classifier_that_knows_rare_rows_is_not_named(cli: Any, tmp_path: Path) -> None:
    given = ("--data", rare(tmp_path, known=3.0), "--model", "mlp:width=8,depth=1", "--epochs", "30", "--lr", "0.02")
    assert cli("train", *given, "--out", tmp_path / "run").code == 0
    summary = cli.summary(tmp_path / "run")
    assert summary["balanced_error"] < 0.3
    assert summary["warnings"] == []


def test_a_gap_between_validation_and_test_is_named(cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(600, 4)), rng.normal(size=(300, 4))
    y, y_test = (x[:, 0] > 0).astype(np.int64), (x_test[:, 0] > 0).astype(np.int64)
    y_test[:100] = 1 - y_test[:100]  # as if they were of another kind
    for name, labels in (("classes", (y, y_test)), ("numbers", (x[:, 0], x_test[:, 0] + (np.arange(300) < 100)))):
        data = tmp_path / f"{name}.npz"
        np.savez(data, x=x, y=labels[0], x_test=x_test, y_test=labels[1])
        given = ("--data", data, "--model", "mlp:width=8,depth=1", "--epochs", "20", "--lr", "0.02")
        assert cli("train", *given, "--out", tmp_path / name).code == 0
        summary = cli.summary(tmp_path / name)
        assert summary["gap"] < 0.001
        [sentence] = summary["warnings"]
        test = "Fisher's exact test" if name == "classes" else "Mann and Whitney's test"
        assert f"which is more than chance ({test}: p = {summary['gap']:.1g})" in sentence


# --- class weights ---


def test_class_weights_find_rare_rows(cli: Any, tmp_path: Path) -> None:
    """Where the classes overlap, the fewest errors are made by hardly ever giving the rare answer."""
    given = ("--data", rare(tmp_path, known=1.5), "--model", "mlp:width=8,depth=1", "--epochs", "20", "--lr", "0.02")
    for name, more in {"none": ("--class-weight", "none"), "plain": (), "balanced": BALANCED}.items():
        ended = cli("train", *given, *more, "--compare", "dense,loss-term", "--out", tmp_path / name)
        assert ended.code == 0
    contents = {name: cli.contents(tmp_path / name) for name in ("none", "plain", "balanced")}
    for part in ("", "dense/", "loss-term/"):
        assert contents["none"][f"{part}model.safetensors"] == contents["plain"][f"{part}model.safetensors"]
        assert contents["none"][f"{part}model.safetensors"] != contents["balanced"][f"{part}model.safetensors"]
    plain, balanced = (cli.summary(tmp_path / name) for name in ("plain", "balanced"))
    assert "Trained with balanced class weights." in ended.out
    for part, other in ((plain, balanced), *((plain[name], balanced[name]) for name in ("dense", "loss_term"))):
        rare_class, weighted = (each["test"]["classes"][1]["recall"] for each in (part, other))
        assert rare_class < 0.4 < 0.6 < weighted
        assert other["balanced_error"] < part["balanced_error"]
        assert other["error"] > other["test"]["scores"]["error"]["constant"]
        assert other["regularisation"] == ["balanced class weights"]
        assert other["warnings"] == []  # the errors are more than those of one answer, and yet it does not guess
    # the reported loss has no weights
    assert balanced["loss"] == pytest.approx(balanced["test"]["scores"]["log_loss"]["value"], rel=1e-5)


@pytest.mark.parametrize("path", [False, True], ids=["train", "path"])
def test_a_stopped_run_with_class_weights_ends_as_a_whole_one(
    cli: Any, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch, path: bool
) -> None:
    given = ["path" if path else "train", "--data", rare(tmp_path, known=1.5), "--model", "mlp:width=8,depth=1"]
    given += ["--epochs", "3", *BALANCED]
    given += ["--points", "3", "--lams", "0.01,0.1", "--epochs-each", "2", "--collapse", "1"] if path else []
    assert cli(*given, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context():
        stop(LambdaLR, "step", "before", 12)
        assert cli(*given, "--out", tmp_path / "run").code == 130
    monkeypatch.undo()
    assert cli(given[0], "--resume", "--out", tmp_path / "run").code == 0
    left, right = cli.contents(tmp_path / "run"), cli.contents(tmp_path / "whole")
    assert left["model.safetensors"] == right["model.safetensors"]
    cli.assert_refused(
        cli(given[0], "--resume", "--class-weight", "none", "--out", tmp_path / "run"),
        "--class-weight none differs from the run's balanced",
    )


def test_class_weights_that_do_not_fit_are_refused(cli: Any, classes: Path, amounts: Path, tmp_path: Path) -> None:
    for data, options, *names in (
        (classes, ("--class-weight", "balance"), "unknown class weight 'balance'; did you mean 'balanced'?"),
        (amounts, BALANCED, "--class-weight balanced needs classes", "the targets here are numbers"),
        (classes, (*BALANCED, "--loss", "torch.nn.functional:multi_margin_loss"), "needs classes and their loss"),
    ):
        cli.assert_refused(cli.train(data, tmp_path / "run", *options), *names)
        assert not (tmp_path / "run").exists()


def test_groups_are_compared_where_there_are_groups(cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    animals = np.arange(40).repeat(10)
    x = rng.normal(size=(400, 3))
    labels = np.where(x[:, 0] > 0, "yes", "no")
    lines = [f"{k},{a:.3f},{b:.3f},{c:.3f},{y}" for k, (a, b, c), y in zip(animals, x, labels, strict=True)]
    (tmp_path / "animals.csv").write_text("\n".join(["animal,a,b,c,label", *lines]))
    assert cli.train(tmp_path / "animals.csv", tmp_path / "run", "--group", "animal").code == 0
    rows = read_data(RunFolder(tmp_path / "run").read_experiment().options)[1]
    assert rows.held_groups is not None
    assert [len(part) for part in rows.held_groups] == [len(rows.validation[0]), len(rows.test[0])]
    assert 0 < cli.summary(tmp_path / "run")["gap"] <= 1
    found = cli.summary(tmp_path / "run")["test"]["scores"]["error"]
    without = [line.partition(",")[2] for line in (tmp_path / "animals.csv").read_text().splitlines()]
    (tmp_path / "unknown.csv").write_text("\n".join(without))
    widths = []
    for name in ("animals", "unknown"):
        out = ("--json", "--out", tmp_path / "predictions.csv")
        ended = cli("predict", tmp_path / "run", "--data", tmp_path / f"{name}.csv", *out)
        assert ended.code == 0
        assert ("intervals take rows to be independent" in ended.err) == (name == "unknown")
        score = json.loads(ended.out)["quality"]["scores"]["error"]
        widths.append(score["high"] - score["low"])
    assert widths[0] != widths[1]
    assert found["low"] < found["value"] < found["high"]
