"""A training that has failed says so: on the screen, in summary.json, on the page and by its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

MODEL = ("--data", "digits", "--model", "mlp:width=24,depth=2", "--batch-size", "128")


def summary_of(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


@pytest.mark.usefixtures("whole_pages")
def test_a_network_that_guesses_is_no_result(cli: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    ended = cli("train", *MODEL, "--lam", "100", "--epochs", "6", "--out", run)
    assert ended.code == 0
    found = summary_of(run)["warnings"]
    assert any("hardly better than guessing" in sentence for sentence in found)
    assert any("The training loss never fell" in sentence for sentence in found)
    assert any(sentence.startswith("No weight is left in ") for sentence in found)
    for sentence in found:
        assert f"warning: {sentence}" in ended.out
    page = (run / "report.html").read_text()
    assert page.index('class="warning"') < page.index('class="lead"')


DEAD = """
import torch
from torch import nn


def dead(input_shape, outputs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, outputs))
    with torch.no_grad():
        model[1].bias.fill_(-1000.0)
    return model
"""


def test_training_stops_where_nothing_can_change(cli: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dead_models.py").write_text(DEAD)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    given = ("--data", "digits", "--model", "dead_models:dead", "--epochs", "5")
    ended = cli("train", *given, "--strict", "--out", run)
    assert ended.code == 3
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert "training stops: no penalised weight has a gradient any more" in ended.out
    assert any(sentence.startswith("Training stopped after epoch 1") for sentence in summary_of(run)["warnings"])


def test_a_ruined_network_is_named(cli: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    given = ("--data", "digits", "--model", "lenet-300-100", "--sparsity", "0.97", "--epochs", "40", "--seed", "5")
    given += ("--recipe", "proximal")
    ended = cli("train", *given, "--out", run)
    assert ended.out.count("the network is ruined") == 1
    summary = summary_of(run)
    assert summary["target_met"] is True
    assert any("The balanced error on the validation rows rose from" in sentence for sentence in summary["warnings"])


def test_a_missed_target_is_said_once(cli: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    ended = cli(
        "train", *MODEL, "--recipe", "proximal", "--sparsity", "0.97", "--epochs", "1", "--strict", "--out", run
    )
    assert ended.code == 3
    assert ended.out.count("TargetSparsity: training ended with") == 1
    assert summary_of(run)["target_met"] is False


@pytest.mark.parametrize("theta", [(), ("--reweight", "0.2")], ids=["plain", "reweighted"])
def test_the_latent_form_meets_the_target_in_a_short_training(cli: Any, tmp_path: Any, theta: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    latent = ("--form", "latent", "--lam", "0.03", "--lr", "1e-2", "--schedule", "wsd", "--warmup", "0.05")
    ended = cli(
        "train",
        *MODEL,
        *latent,
        *theta,
        "--hold",
        "0.25",
        "--sparsity",
        "0.9",
        "--epochs",
        "12",
        "--strict",
        "--out",
        run,
    )
    assert (ended.code, ended.err) == (0, "")
    summary = summary_of(run)
    assert (summary["target_met"], summary["warnings"]) == (True, [])
    assert summary["stationarity"] is None
    assert summary["error"] < 0.12
    weights = [w for w in load_file(run / "model.safetensors").values() if w.dim() == 2]
    zeros, of = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    assert abs(zeros - 0.9 * of) <= 1


def test_the_latent_form_on_a_path(cli: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    options = (
        "--form",
        "latent",
        "--lam",
        "0.03",
        "--hold",
        "0.3",
        "--schedule",
        "wsd",
        "--lr",
        "5e-3",
        "--points",
        "4",
    )
    ended = cli("path", *MODEL, *options, "--epochs", "6", "--epochs-each", "4", "--sparsest", "0.9", "--out", run)
    assert (ended.code, ended.err) == (0, "")
    points = [json.loads(line) for line in (run / "path.jsonl").read_text().splitlines()]
    assert [round(point["sparsity"], 2) for point in points] == [0.0, 0.5, 0.78, 0.9]
    assert points[-1]["validation"]["error"] < 0.3


def test_options_that_do_not_go_together(cli: Any, tmp_path: Any) -> None:
    for options, why in {
        ("--hold", "1"): "--hold must be a share of the steps",
        ("--warmup", "1.5"): "warmup must be a share of the steps",
        ("--form", "dual"): "unknown form 'dual'",
        ("--form", "latent", "--compare", "loss-term"): "no loss term has the λ of the latent form",
        ("--form", "latent", "--penalty", "mcp"): "use L1 with torchlasso.Reweighted",
    }.items():
        ended = cli("train", *MODEL, *options, "--epochs", "1", "--out", tmp_path / "run")
        assert ended.code == 2
        assert why in ended.err
        assert not (tmp_path / "run" / "config.json").exists()


def test_a_summary_of_an_earlier_version_still_reads(cli: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    cli("train", *MODEL, "--epochs", "1", "--out", run)
    summary = summary_of(run)
    del summary["warnings"], summary["target_met"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert cli("report", run).code == 0
