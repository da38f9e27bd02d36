"""Training on times and events: Cox's partial likelihood, and the concordance of its risks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from torchlasso import data
from torchlasso.estimators import SparseCox
from torchlasso.estimators.concordance import concordance_index
from torchlasso.training.evaluation import full_gradient
from torchlasso.training.survival import cox

TARGETS = ("--time", "days", "--event", "died")


def write(path: Path, rows: int, seed: int, **changed: int) -> Path:
    """Days until one of two causes, of which the first two of six columns know."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6))
    days = np.ceil(1000 * rng.exponential(np.exp(-x[:, 0] + 0.7 * x[:, 1])))
    left = np.ceil(1000 * rng.exponential(2.0, rows))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*"abcdef", "days", "died"])
        for values, day, leave in zip(x, days, left, strict=True):
            own = {"days": int(min(day, leave)), "died": int(day <= leave), **changed}
            writer.writerow([*(f"{value:.4f}" for value in values), own["days"], own["died"]])
    return path


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    write(folder / "train.csv", 200, 0)
    write(folder / "test.csv", 80, 1)
    return folder


def part_of(path: Path) -> tuple[torch.Tensor, np.ndarray]:
    part = data.load_part(str(path), survival=("days", "died"))
    assert part.y is not None
    return part.tensor, part.y


@pytest.mark.slow
def test_weights_of_rows_are_those_of_the_estimator(cli: Any, patients: Path, tmp_path: Path) -> None:
    run, lam = tmp_path / "run", 0.05
    with (patients / "train.csv").open() as file:
        head, *lines = file.read().splitlines()
    weights = np.random.default_rng(3).integers(0, 4, len(lines))
    rows = [f"{line},{w}" for line, w in zip(lines, weights, strict=True)]
    folder = tmp_path / "weighted"
    folder.mkdir()
    (folder / "train.csv").write_text("\n".join([f"{head},count", *rows]) + "\n")
    (folder / "test.csv").write_text((patients / "test.csv").read_text())
    options = ("--model", "mlp:depth=0", "--validation", "0", "--batch-size", "200", "--epochs", "400", "--lr", "0.05")
    ended = cli("train", "--data", folder, *TARGETS, *options, "--weight", "count", "--lam", lam, "--out", run)
    assert (ended.code, ended.err) == (0, "")
    x, y = part_of(patients / "train.csv")
    scale = data.Standardizer.fit(x)
    model = SparseCox(lam=lam, hidden=(), ties="efron", tol=1e-10, points=1)
    known = model.fit(scale(x).numpy(), y[:, ::-1], sample_weight=weights)
    found = load_file(run / "model.safetensors")["head.weight"].flatten().numpy()
    np.testing.assert_allclose(found, known.coef_.flatten(), atol=2e-3)
    plain = model.fit(scale(x).numpy(), y[:, ::-1])
    assert np.abs(found - plain.coef_.flatten()).max() > 0.02
    assert cli.summary(run)["stationarity"]["max"] < 0.05


@pytest.mark.slow
def test_a_linear_model_is_that_of_the_estimator(cli: Any, patients: Path, tmp_path: Path) -> None:
    run, lam = tmp_path / "run", 0.05
    options = ("--model", "mlp:depth=0", "--validation", "0", "--batch-size", "200", "--epochs", "400", "--lr", "0.05")
    ended = cli("train", "--data", patients, *TARGETS, *options, "--lam", lam, "--out", run)
    assert (ended.code, ended.err) == (0, "")
    assert "times, " in ended.out
    (x, y), (test_x, test_y) = part_of(patients / "train.csv"), part_of(patients / "test.csv")
    scale = data.Standardizer.fit(x)
    known = SparseCox(lam, hidden=(), ties="efron").fit(scale(x).double().numpy(), np.flip(y, axis=1))
    weights = load_file(run / "model.safetensors")["head.weight"].flatten()
    np.testing.assert_allclose(weights.numpy(), known.coef_.flatten(), atol=2e-3)
    assert ((weights == 0).numpy() == (known.coef_.flatten() == 0)).all()
    summary = cli.summary(run)
    risk = (scale(test_x) @ weights).numpy()
    found = summary["test"]["scores"]["concordance"]["value"]
    assert found == pytest.approx(concordance_index(test_y[:, 0], test_y[:, 1] > 0, risk), abs=1e-6)
    assert found > 0.7
    assert summary["stationarity"]["max"] < 0.05
    predicted = cli("predict", run, "--data", patients / "test.csv")
    assert predicted.code == 0
    assert f"{found:.3f}" in predicted.err
    shown = np.array([float(line.split(",")[1]) for line in predicted.out.splitlines()[1:]])
    assert np.corrcoef(shown, risk)[0, 1] > 0.999


@pytest.mark.slow
def test_a_network_by_batches(cli: Any, patients: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", "mlp:width=16,depth=1", "--batch-size", "50", "--epochs", "60", "--lam", "0.02")
    ended = cli("train", "--data", patients, *TARGETS, *options, "--over", "inputs", "--lr", "3e-3", "--out", run)
    assert ended.code == 0
    assert "warning" not in ended.out
    summary = cli.summary(run)
    assert summary["live_inputs"] == 2
    assert summary["test"]["scores"]["concordance"]["value"] > 0.7


def test_a_path_chooses_among_its_points_by_the_loss(cli: Any, patients: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lengths = ("--epochs", "20", "--epochs-each", "3", "--points", "4", "--batch-size", "50", "--lr", "0.02")
    ended = cli("path", "--data", patients, *TARGETS, "--model", "mlp:depth=0", *lengths, "--out", run)
    assert ended.code == 0
    points = [json.loads(line) for line in (run / "path.jsonl").read_text().splitlines()]
    assert [point["sparsity"] for point in points] == sorted(point["sparsity"] for point in points)
    found = cli.summary(run)["test"]["scores"]["concordance"]["value"]
    x, y = part_of(patients / "test.csv")
    weights = load_file(run / "model.safetensors")["head.weight"].flatten()
    assert (weights[2:] == 0).sum() >= 2
    scale = data.Standardizer.fit(part_of(patients / "train.csv")[0])
    risk = (scale(x) @ weights).numpy()
    assert found == pytest.approx(concordance_index(y[:, 0], y[:, 1] > 0, risk), abs=0.01)
    assert found > 0.7
    predicted = cli("predict", run, "--data", patients / "test.csv")
    assert (predicted.code, f"{found:.3f}" in predicted.err) == (0, True)


@pytest.mark.parametrize("folds", [(), ("--folds", "3")])
def test_one_standard_error_is_sparser_than_the_best(
    cli: Any, patients: Path, tmp_path: Path, folds: tuple[str, ...]
) -> None:
    """Two of six columns matter: what four others add to the likelihood of held-out rows is below its error."""
    run = tmp_path / "run"
    lengths = ("--epochs", "20", "--epochs-each", "10", "--points", "4", "--batch-size", "50", "--lr", "0.02")
    options = ("--model", "mlp:depth=0", "--densest", "0.3", "--sparsest", "0.7", *lengths, *folds)
    ended = cli("path", "--data", patients, *TARGETS, *options, "--choose", "one-se", "--out", run)
    assert ended.code == 0
    names = [f"fold-{k}.jsonl" for k in range(3)] if folds else ["path.jsonl"]
    points = [[json.loads(line) for line in (run / name).read_text().splitlines()] for name in names]
    losses = [np.mean([point["validation"]["loss"] for point in column]) for column in zip(*points, strict=False)]
    errors = [
        np.sqrt(np.mean([point["spread"] ** 2 for point in column]) / len(column))
        for column in zip(*points, strict=False)
    ]
    assert min(errors) > 0.01
    best = int(np.argmin(losses))
    good = [i for i, loss in enumerate(losses) if loss <= losses[best] + errors[best]]
    assert cli.summary(run)["nonzero"] == points[0][good[-1]]["nonzero"] <= 3
    assert cli.summary(run)["test"]["scores"]["concordance"]["value"] > 0.7


def test_the_gradient_is_that_of_all_rows_at_risk_together() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(2500, 3), nn.Linear(3, 1)
    y = torch.stack([torch.randperm(2500).float(), (torch.rand(2500) < 0.5).float()], dim=1)
    full_gradient(model, cox, x, y)
    [wanted] = torch.autograd.grad(cox(model(x), y), [model.weight])
    torch.testing.assert_close(model.weight.grad, wanted)


@pytest.mark.parametrize("command", ["train", "path"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--time", "days"), ("--time", "--event")),
        ((*TARGETS, "--label", "died"), ("--label", "--time")),
        ((*TARGETS, "--loss", "mse"), ("--loss", "cox")),
        (("--label", "died", "--loss", "cox"), ("cox", "--time")),
        (("--time", "days", "--event", "dead"), ("'dead'", "there are")),
        (("--time", "days", "--event", "a"), ("'a'", "an event is 1")),
    ],
)
def test_targets_that_are_refused(
    cli: Any, patients: Path, tmp_path: Path, command: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ended = cli(command, "--data", patients, *options, "--model", "mlp", "--epochs", "1", "--out", tmp_path / "run")
    cli.assert_refused(ended, *words)


def test_rows_without_an_event(cli: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "alive.csv", 60, 0, died=0)
    ended = cli("train", "--data", path, *TARGETS, "--model", "mlp", "--out", tmp_path / "run")
    cli.assert_refused(ended, "there is no event")
