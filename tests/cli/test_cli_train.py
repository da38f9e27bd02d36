"""torchlasso train: the files of a run, and their agreement with the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from torchlasso import data, models

pytestmark = pytest.mark.slow

FILES = {
    "config.json",
    "metrics.jsonl",
    "checkpoint/state.safetensors",
    "model.safetensors",
    "summary.json",
    "report.html",
}
SUMMARY = {
    "accuracy",
    "error",
    "loss",
    "sparsity",
    "nonzero",
    "penalised",
    "parameters",
    "lam",
    "epochs",
    "seconds",
    "stationarity",
}
METRICS = {"epoch", "loss", "sparsity", "switched", "lam", "lr", "seconds", "val_loss", "val_accuracy", "val_error"}
METRICS |= {"val_balanced_error", "weights_left"}


def weights(model: Path) -> dict[str, torch.Tensor]:
    return {name: w for name, w in load_file(model).items() if w.dim() >= 2}


def split_rows(path: Path, folder: Path) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The model of a run of the default options, and its training and test rows, made without the command line."""
    dataset = data.load(str(path))
    kept, _ = data.holdout(dataset.y, 0.1, 0)
    scale = data.Standardizer.fit(dataset.x[kept])
    model = models.build("mlp", dataset.input_shape, dataset.outputs, width=8, depth=1)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), (scale(dataset.x[kept]), dataset.y[kept], scale(dataset.test_x), dataset.test_y)


def test_a_run_is_these_files_and_no_others(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run")
    assert (ended.code, ended.err) == (0, "")
    assert set(cli.contents(tmp_path / "run")) == FILES


def test_a_comparison_is_a_folder_in_the_run(cli: Any, finished: Path) -> None:
    parts = {f"{part}/{name}" for part in ("dense", "loss-term") for name in FILES - {"report.html"}}
    assert set(cli.contents(finished / "classes")) == FILES | parts


def test_metrics_have_a_line_per_epoch(cli: Any, finished: Path) -> None:
    for folder in (finished / "classes", finished / "classes" / "dense", finished / "classes" / "loss-term"):
        lines = cli.metrics(folder)
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        assert all(set(line) == METRICS for line in lines)
        assert all(line["val_error"] == pytest.approx(1 - line["val_accuracy"]) for line in lines)
        rates = [line["lr"] for line in lines]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0, abs=1e-12)  # the cosine ends with the training
    assert cli.metrics(finished / "classes")[-1]["sparsity"] == pytest.approx(
        cli.summary(finished / "classes")["sparsity"], abs=1e-12
    )


def test_metrics_without_validation_rows_have_no_val(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "run", "--validation", "0").code == 0
    assert all(not key.startswith("val_") for line in cli.metrics(tmp_path / "run") for key in line)


def test_the_summary_has_its_keys_and_the_comparisons_have_the_same(cli: Any, finished: Path) -> None:
    summary = cli.summary(finished / "classes")
    assert set(summary) >= SUMMARY | {"dense", "loss_term"}
    own = set(summary) - {"data", "features_read", "dense", "loss_term"}
    assert set(summary["dense"]) == set(summary["loss_term"]) == own
    assert (summary["lam"], summary["epochs"]) == (0.02, 3)
    assert all(part["seconds"] > 0 for part in (summary, summary["dense"], summary["loss_term"]))
    assert set(summary["stationarity"]) == {"max", "mean"}


def test_the_summary_counts_the_weights_in_the_model_file(cli: Any, finished: Path) -> None:
    run = finished / "classes"
    summary = cli.summary(run)
    for part, folder in ((summary, run), (summary["dense"], run / "dense"), (summary["loss_term"], run / "loss-term")):
        held = load_file(folder / "model.safetensors")
        zeros = sum(int((w == 0).sum()) for w in held.values() if w.dim() >= 2)
        count = sum(w.numel() for w in held.values() if w.dim() >= 2)
        assert part["penalised"] == count == 5 * 8 + 8 * 3
        assert part["nonzero"] == count - zeros
        assert part["sparsity"] == zeros / count
        assert part["parameters"] == sum(w.numel() for w in held.values())
    assert summary["sparsity"] > 0
    assert summary["dense"]["sparsity"] == summary["loss_term"]["sparsity"] == 0


def test_the_summary_has_the_model_s_test_result(cli: Any, finished: Path, classes: Path) -> None:
    run = finished / "classes"
    summary = cli.summary(run)
    for part, folder in ((summary, run), (summary["dense"], run / "dense"), (summary["loss_term"], run / "loss-term")):
        model, (_, _, x, y) = split_rows(classes, folder)
        with torch.no_grad():
            outputs = model(x)
        wrong = (outputs.argmax(1) != y).double().mean().item()
        assert part["error"] == pytest.approx(wrong, abs=1e-12)
        assert part["accuracy"] == pytest.approx(1 - wrong, abs=1e-12)
        assert part["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, y).item(), rel=1e-6)


def test_the_summary_has_the_model_s_stationarity(cli: Any, finished: Path, classes: Path) -> None:
    summary, lam = cli.summary(finished / "classes"), 0.02
    model, (x, y, _, _) = split_rows(classes, finished / "classes")
    nn.functional.cross_entropy(model(x), y).backward()
    distances = torch.cat(
        [
            torch.where(w == 0, (w.grad.abs() - lam).clamp_min(0), (w.grad + lam * w.sign()).abs()).flatten() / lam
            for w in model.parameters()
            if w.dim() >= 2
        ]
    )
    assert summary["stationarity"]["max"] == pytest.approx(distances.max().item(), rel=1e-4)
    assert summary["stationarity"]["mean"] == pytest.approx(distances.mean().item(), rel=1e-4)


def test_the_same_options_give_the_same_weights(cli: Any, classes: Path, tmp_path: Path, finished: Path) -> None:
    assert cli.train(classes, tmp_path / "again", "--compare", "dense,loss-term").code == 0
    first, second = cli.contents(finished / "classes"), cli.contents(tmp_path / "again")
    for name in ("model.safetensors", "dense/model.safetensors", "loss-term/model.safetensors"):
        assert first[name] == second[name]
    assert cli.summary(tmp_path / "again", timed=False) == cli.summary(finished / "classes", timed=False)
    assert cli.train(classes, tmp_path / "other", "--seed", "1").code == 0
    assert cli.contents(tmp_path / "other")["model.safetensors"] != first["model.safetensors"]


def test_a_comparison_does_not_change_the_run(cli: Any, classes: Path, tmp_path: Path, finished: Path) -> None:
    assert cli.train(classes, tmp_path / "alone").code == 0
    alone = cli.contents(tmp_path / "alone")["model.safetensors"]
    assert alone == cli.contents(finished / "classes")["model.safetensors"]


def test_the_configuration_is_enough_to_run_again(cli: Any, classes: Path, tmp_path: Path) -> None:
    chosen = ["--penalty", "mcp:gamma=2.5", "--over", "filters", "--optimizer", "sgd:momentum=0.9", "--schedule"]
    chosen += ["linear", "--seed", "7", "--validation", "0.2", "--label", "label", "--ignore", "d,e"]
    assert cli.train(classes, tmp_path / "first", *chosen).code == 0
    options = json.loads((tmp_path / "first" / "config.json").read_text())["options"]
    assert options["ignore"] == ["d", "e"]
    assert cli("train", *cli.as_arguments(options), "--out", tmp_path / "second").code == 0
    first, second = cli.contents(tmp_path / "first"), cli.contents(tmp_path / "second")
    assert first["model.safetensors"] == second["model.safetensors"]
    assert first["config.json"] == second["config.json"]


def test_regression_has_a_loss_and_no_error(cli: Any, finished: Path, amounts: Path) -> None:
    summary = cli.summary(finished / "amounts")
    assert summary["error"] is summary["accuracy"] is None
    model, (_, _, x, y) = split_rows(amounts, finished / "amounts")
    inputs = json.loads((finished / "amounts" / "config.json").read_text())["inputs"]
    y = data.Standardizer(**inputs["scale"])(y)
    with torch.no_grad():
        assert summary["loss"] == pytest.approx(nn.functional.mse_loss(model(x), y).item(), rel=1e-6)
    page = (finished / "amounts" / "report.html").read_text()
    assert f"at a test R² of {summary['test']['scores']['r2']['value']:.3f}." in page
    assert "test error" not in page


def test_without_a_penalty_there_is_nothing_to_be_stationary_of(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert cli.train(classes, tmp_path / "run", "--lam", "0").code == 0
    summary = cli.summary(tmp_path / "run")
    assert summary["stationarity"] is None
    assert summary["sparsity"] == 0
    assert cli("report", tmp_path / "run").code == 0


def test_the_digits_become_sparse(cli: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--data", "digits", "--model", "lenet-5", "--epochs", "1", "--batch-size", "32", "--lam", "3e-4"]
    assert cli("train", *arguments, "--out", run).code == 0
    summary = cli.summary(run)
    zeros = sum(int((w == 0).sum()) for w in weights(run / "model.safetensors").values())
    assert summary["penalised"] - summary["nonzero"] == zeros > 0
    assert summary["accuracy"] > 0.5
    ended = cli("predict", run, "--data", "digits")
    assert ended.out.count("\n") == 1 + 359
    assert f"error {100 * summary['error']:.1f} %" in ended.err


def test_the_screen_shows_every_epoch_and_the_runs_side_by_side(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run", "--compare", "dense")
    for variant in ("torchlasso", "dense"):
        shown = [line for line in ended.out.splitlines() if line.startswith(variant) and "epoch" in line]
        assert len(shown) == 3
    summary = cli.summary(tmp_path / "run")
    assert f"{summary['nonzero']} of {summary['penalised']}" in ended.out
    assert "exact zeros" in ended.out


@pytest.mark.parametrize(
    ("command", "more"), [("train", ()), ("path", ("--points", "3", "--epochs-each", "1"))], ids=str
)
def test_json_output_is_the_summary_alone(
    cli: Any, classes: Path, tmp_path: Path, command: str, more: tuple[str, ...]
) -> None:
    few = ("--model", "mlp:width=8,depth=1", "--epochs", "2")
    ended = cli(command, "--data", classes, *few, *more, "--out", tmp_path / "run", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "zeros" in ended.err
    assert "zeros" in cli("report", tmp_path / "run").out  # what comes later goes where it went


@pytest.mark.parametrize("name", ["a[l1]b", "a[/b]c"])
def test_a_folder_s_name_is_shown_as_it_is(cli: Any, classes: Path, tmp_path: Path, name: str) -> None:
    ended = cli.train(classes, tmp_path / name)
    assert ended.code == 0
    assert name in ended.out


def test_a_run_is_not_replaced_unasked(cli: Any, classes: Path, copied: Callable[..., Path]) -> None:
    run = copied()
    before = cli.contents(run)
    ended = cli.train(classes, run)
    assert ended.code == 2
    assert all(word in ended.err for word in (str(run), "--resume", "--overwrite"))
    assert cli.contents(run) == before
    assert cli.train(classes, run, "--resume", "--overwrite").code == 2
    assert cli.contents(run) == before


def test_overwrite_replaces_the_run_and_its_comparisons(cli: Any, classes: Path, copied: Callable[..., Path]) -> None:
    run = copied()
    (run / "notes.txt").write_text("mine")
    assert cli.train(classes, run, "--overwrite", "--epochs", "2").code == 0
    assert set(cli.contents(run)) == FILES | {"notes.txt"}  # other files stay
    assert [line["epoch"] for line in cli.metrics(run)] == [1, 2]


def test_a_model_with_a_layer_that_is_not_used_can_be_trained(
    cli: Any, classes: Path, tmp_path: Path, models: str
) -> None:
    ended = cli.train(classes, tmp_path / "run", "--model", f"{models}:with_an_idle_layer")
    assert (ended.code, ended.err) == (0, "")


def test_it_runs_as_a_program(tmp_path: Path, classes: Path, environment: dict[str, str]) -> None:
    program = [
        sys.executable,
        "-m",
        "torchlasso.cli.main",
        "train",
        "--data",
        classes,
        "--model",
        "mlp:width=8,depth=1",
    ]
    program += ["--epochs", "1", "--out", tmp_path / "run"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "epoch 1/1" in done.stdout
    assert "\x1b" not in done.stdout  # no colours and no bar where output goes to a file
