"""torchlasso predict and report: their output agrees with the model file."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from torchlasso import data


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def rewritten(path: Path, new: Path, order: list[str]) -> Path:
    """A CSV file with some of the columns of another, in this order."""
    rows = rows_of(path.read_text())
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, order, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return new


def by_hand(run: Path, table: Path) -> torch.Tensor:
    """The outputs of a run's model, in the units of the targets, from its two files alone."""
    config = json.loads((run / "config.json").read_text())
    scale = config["inputs"]["standardizer"]
    x = data.load_part(str(table)).x
    x = (x - torch.tensor(scale["mean"])) / torch.tensor(scale["std"])
    w = load_file(run / "model.safetensors")
    hidden = nn.functional.linear(x, w["fc1.weight"], w["fc1.bias"]).relu()
    outputs = nn.functional.linear(hidden, w["head.weight"], w["head.bias"])
    of_targets = config["inputs"]["scale"]
    return outputs if of_targets is None else data.Standardizer(**of_targets).undone(outputs)


def relative_loss(finished: Path, outputs: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean squared error relative to the variance of the training labels."""
    [std] = json.loads((finished / "amounts" / "config.json").read_text())["inputs"]["scale"]["std"]
    return float(((outputs - truth) / std).square().mean())


def test_the_predictions_are_the_model_s(cli: Any, finished: Path, classes: Path) -> None:
    ended = cli("predict", finished / "classes", "--data", classes)
    assert ended.code == 0
    outputs = by_hand(finished / "classes", classes)
    names = sorted({row["label"] for row in rows_of(classes.read_text())})
    rows = rows_of(ended.out)
    assert [row["row"] for row in rows] == [str(i) for i in range(120)]
    assert [row["prediction"] for row in rows] == [names[k] for k in outputs.argmax(1)]
    assert len({row["prediction"] for row in rows}) > 1
    given = torch.tensor([float(row["probability"]) for row in rows])
    assert torch.allclose(given, outputs.softmax(1).amax(1), atol=2e-6)


def test_the_error_is_printed_if_there_are_labels(cli: Any, finished: Path, classes: Path) -> None:
    ended = cli("predict", finished / "classes", "--data", classes)
    truth = [row["label"] for row in rows_of(classes.read_text())]
    wrong = np.mean([a != b["prediction"] for a, b in zip(truth, rows_of(ended.out), strict=True)])
    assert 0 < wrong < 1
    first, *table = ended.err.splitlines()
    assert first.startswith(f"120 rows: error {100 * wrong:.1f} %, loss ")
    assert table[0].split("  ")[-1].strip() == "constant answer"
    assert len(table) == 1 + 6


def test_the_probabilities_of_all_classes_are_columns(cli: Any, finished: Path, classes: Path) -> None:
    plain = cli("predict", finished / "classes", "--data", classes)
    ended = cli("predict", finished / "classes", "--data", classes, "--probabilities")
    rows, names = rows_of(ended.out), ["high", "low", "middle"]
    assert list(rows[0]) == ["row", "prediction", "probability", *(f"probability_{name}" for name in names)]
    given = torch.tensor([[float(row[f"probability_{name}"]) for name in names] for row in rows])
    assert torch.allclose(given, by_hand(finished / "classes", classes).softmax(1), atol=2e-6)
    kept = [{key: row[key] for key in ("row", "prediction", "probability")} for row in rows]
    assert kept == rows_of(plain.out)
    assert ended.err == plain.err


def test_the_figures_as_json(cli: Any, finished: Path, classes: Path, amounts: Path, tmp_path: Path) -> None:
    for name, table in (("classes", classes), ("amounts", amounts)):
        ended = cli("predict", finished / name, "--data", table, "--json")
        assert (ended.code, ended.err) == (0, "")
        found, outputs = json.loads(ended.out), by_hand(finished / name, table)
        truth = [row["label"] for row in rows_of(table.read_text())]
        assert found["rows"] == found["quality"]["rows"] == 120
        assert found["quality"]["constant"] == cli.summary(finished / name)["test"]["constant"]
        if name == "classes":
            wrong = np.mean([a != ("high", "low", "middle")[k] for a, k in zip(truth, outputs.argmax(1), strict=True)])
            assert found["error"] == found["quality"]["scores"]["error"]["value"] == pytest.approx(wrong)
        else:
            errors = outputs.flatten() - torch.tensor([float(value) for value in truth])
            assert found["quality"]["scores"]["mae"]["value"] == pytest.approx(errors.abs().mean().item(), rel=1e-4)
    shown = cli("predict", finished / "classes", "--data", classes)
    ended = cli("predict", finished / "classes", "--data", classes, "--json", "--out", tmp_path / "p.csv")
    assert json.loads(ended.out)["rows"] == 120
    assert (tmp_path / "p.csv").read_text() == shown.out


def test_an_exported_model_knows_the_constant_answer(
    cli: Any, copied: Callable[[str], Path], classes: Path, tmp_path: Path
) -> None:
    run = copied("classes")
    assert cli("export", run, "--format", "pt2").code == 0
    [file] = (run / "export").glob("*.pt2")
    of_run, of_file = (json.loads(cli("predict", each, "--data", classes, "--json").out) for each in (run, file))
    assert of_file["quality"]["constant"] == of_run["quality"]["constant"]
    assert of_file["error"] == of_run["error"]


def test_figures_that_there_are_not_are_refused(
    cli: Any, finished: Path, classes: Path, amounts: Path, tmp_path: Path
) -> None:
    new = rewritten(classes, tmp_path / "new.csv", ["a", "b", "c", "d", "e"])
    ended = cli("predict", finished / "classes", "--data", new, "--json", "--out", tmp_path / "p.csv")
    cli.assert_refused(ended, "--json prints figures, which need labels", str(new))
    ended = cli("predict", finished / "amounts", "--data", amounts, "--probabilities", "--out", tmp_path / "p.csv")
    cli.assert_refused(ended, "--probabilities needs a model of classes; this one predicts numbers")
    assert not (tmp_path / "p.csv").exists()


def test_the_order_of_columns_and_a_missing_label_do_not_matter(
    cli: Any, finished: Path, classes: Path, tmp_path: Path
) -> None:
    expected = cli("predict", finished / "classes", "--data", classes).out
    new = rewritten(classes, tmp_path / "new.csv", ["e", "c", "a", "b", "d"])
    ended = cli("predict", finished / "classes", "--data", new)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == expected


def test_numbers_are_predicted(cli: Any, finished: Path, amounts: Path) -> None:
    ended = cli("predict", finished / "amounts", "--data", amounts)
    assert ended.code == 0
    outputs = by_hand(finished / "amounts", amounts).flatten()
    rows = rows_of(ended.out)
    assert set(rows[0]) == {"row", "prediction"}
    assert torch.allclose(torch.tensor([float(row["prediction"]) for row in rows]), outputs, rtol=1e-5, atol=1e-6)
    truth = torch.tensor([float(row["label"]) for row in rows_of(amounts.read_text())])
    assert f"120 rows: loss {relative_loss(finished, outputs, truth):.4f}" in ended.err
    assert "error" not in ended.err


def test_whole_numbers_serve_as_labels_of_a_regression(cli: Any, finished: Path, amounts: Path, tmp_path: Path) -> None:
    rows = rows_of(amounts.read_text())
    with (tmp_path / "whole.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": 2} for row in rows)
    ended = cli("predict", finished / "amounts", "--data", tmp_path / "whole.csv")
    outputs = by_hand(finished / "amounts", amounts).flatten()
    assert ended.code == 0
    assert f"loss {relative_loss(finished, outputs, torch.tensor(2.0)):.4f}" in ended.err


def test_a_file_has_the_same_content_as_the_screen(cli: Any, finished: Path, classes: Path, tmp_path: Path) -> None:
    shown = cli("predict", finished / "classes", "--data", classes)
    ended = cli("predict", finished / "classes", "--data", classes, "--out", tmp_path / "p.csv")
    assert (ended.code, ended.out, ended.err) == (0, "", shown.err)
    assert (tmp_path / "p.csv").read_text() == shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_predictions_are_written_whole_or_not_at_all(cli: Any, finished: Path, classes: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("before")
    with cli.full_disk(100):
        ended = cli("predict", finished / "classes", "--data", classes, "--out", tmp_path / "p.csv")
    assert ended.code == 2
    assert (tmp_path / "p.csv").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_file_with_a_test_part_is_predicted_there(cli: Any, tables: Path, tmp_path: Path) -> None:
    assert cli.train(tables / "both.npz", tmp_path / "run").code == 0
    ended = cli("predict", tmp_path / "run", "--data", tables / "both.npz")
    assert len(rows_of(ended.out)) == 30
    assert f"error {100 * cli.summary(tmp_path / 'run')['error']:.1f} %" in ended.err


def test_predicting_changes_nothing(cli: Any, copied: Callable[..., Path], classes: Path) -> None:
    run = copied()
    before = cli.contents(run)
    assert cli("predict", run, "--data", classes).code == 0
    assert cli("report", run).code == 0
    assert cli.contents(run) == before


def test_the_report_is_a_table_of_the_layers(cli: Any, finished: Path) -> None:
    run = finished / "classes"
    ended = cli("report", run)
    assert (ended.code, ended.err) == (0, "")
    for name, w in load_file(run / "model.safetensors").items():
        if w.dim() >= 2:
            line = next(line for line in ended.out.splitlines() if line.startswith(name))
            assert f"{100 * (w == 0).double().mean():.1f} %" in line
            assert f"{int((w != 0).any(1).sum())}/{len(w)}" in line
    summary = cli.summary(run)
    assert f"{summary['nonzero']} of {summary['penalised']} remain" in ended.out
    assert f"{summary['stationarity']['max']:.2g}" in ended.out


def test_the_report_as_json(cli: Any, finished: Path, tmp_path: Path) -> None:
    run = finished / "classes"
    ended = cli("report", run, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    summary = cli.summary(run)
    assert {key: value for key, value in found.items() if key != "report"} == summary
    assert sorted(summary.pop("features_read")) == ["a", "b", "c", "d", "e"]
    shutil.copytree(run, tmp_path / "older")
    (tmp_path / "older" / "summary.json").write_text(json.dumps(summary))
    assert json.loads(cli("report", tmp_path / "older", "--json").out) == found  # the graph is read again
    assert found["report"]["nonzero"] == found["nonzero"]
    held = load_file(run / "model.safetensors")
    zeros = {name: int((w == 0).sum()) for name, w in held.items() if w.dim() >= 2}
    assert {layer["name"]: layer["zeros"] for layer in found["report"]["layers"]} == zeros


def test_the_run_of_a_report_is_not_called_an_option(cli: Any) -> None:
    ended = cli("report", "")
    cli.assert_refused(ended, "a run is named by its folder; got an empty text")
    assert "--out" not in ended.err


@pytest.mark.slow
@pytest.mark.usefixtures("whole_pages")
def test_the_report_as_a_page(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    expected = (run / "report.html").read_text().replace(run.name, "NAME").replace("Run classes", "Run NAME")
    (run / "report.html").unlink()
    ended = cli("report", run, "--html")
    assert (ended.code, ended.out, ended.err) == (0, f"{run / 'report.html'}\n", "")
    assert (run / "report.html").read_text().replace(run.name, "NAME") == expected


@pytest.mark.parametrize("command", ["train", "report", "predict"])
def test_every_command_has_help(cli: Any, command: str) -> None:
    ended = cli(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "torchlasso" in ended.out  # its example
