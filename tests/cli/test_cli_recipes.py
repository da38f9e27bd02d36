"""The recipes of torchlasso train and path: the values of the options that are not given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from torchlasso.runs.options import RECIPES, Options, is_by_recipe
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.recipes import CHOOSE, completed, nothing_given

BY_RECIPE = ("recipe", "lam", "form", "lr", "schedule", "warmup", "hold", "reweight")
LATENT = {"form": "latent", "lr": 5e-3, "schedule": "wsd", "warmup": 0.05, "hold": 0.25, "reweight": 0.2, "lam": 0.05}
SHORT = ("--model", "mlp:width=16,depth=1", "--batch-size", "64", "--epochs", "6")


def chosen(**options: Any) -> dict[str, Any]:
    found = completed({**nothing_given(), "data": "digits", **options})
    return {name: found[name] for name in BY_RECIPE}


def test_the_options_that_a_recipe_chooses() -> None:
    assert {name for name in vars(Options(data="digits")) if is_by_recipe(name)} == set(BY_RECIPE)
    assert tuple(CHOOSE) == RECIPES


TO_LATENT: list[dict[str, Any]] = [{"sparsity": 0.9}, {"flops": 0.5}, {"bytes": 2000.0}, {"path": PathOptions()}]
TO_LATENT += [{"recipe": "latent"}, {"sparsity": 0.9, "optimizer": "adamw:weight_decay=0.1"}]
TO_LATENT += [{"form": "latent", "sparsity": 0.9}]
TO_PROXIMAL: list[dict[str, Any]] = [{}, {"lam": 1e-3}, {"path": PathOptions(lams=(1e-4, 1e-2))}]
TO_PROXIMAL += [{"sparsity": 0.9, "optimizer": "sgd:momentum=0.9"}, {"sparsity": 0.9, "compare": ("loss-term",)}]
TO_PROXIMAL += [{"path": PathOptions(), "over": "singular-values"}]
TO_PROXIMAL += [{"sparsity": 0.9, "recipe": "proximal"}, {"sparsity": 0.9, "form": "proximal"}]


@pytest.mark.parametrize("options", TO_LATENT, ids=str)
def test_a_target_has_the_latent_recipe(options: dict[str, Any]) -> None:
    assert chosen(**options) == {**LATENT, "recipe": "latent"}


@pytest.mark.parametrize("options", TO_PROXIMAL, ids=str)
def test_a_lambda_of_the_objective_has_the_proximal_recipe(options: dict[str, Any]) -> None:
    ours = vars(Options(data="digits"))
    wanted = {name: ours[name] for name in BY_RECIPE} | {k: v for k, v in options.items() if k in BY_RECIPE}
    assert chosen(**options) == {**wanted, "recipe": "proximal"}


def test_what_is_given_stays() -> None:
    found = chosen(sparsity=0.9, lr=0.5, hold=0.0, reweight=0.0, warmup=0.0, schedule="cosine", lam=0.3)
    assert found == {**LATENT, "recipe": "latent", "lr": 0.5, "hold": 0.0, "reweight": 0.0, "warmup": 0.0} | {
        "schedule": "cosine",
        "lam": 0.3,
    }


def test_penalties_that_weigh_their_blocks_themselves_are_not_reweighted() -> None:
    assert chosen(sparsity=0.9, penalty="mcp:gamma=3")["reweight"] is None
    for over, theta in {"filters": 0.2, "units:by=flops": 0.2, "nm:n=2": 0.2}.items():
        assert chosen(sparsity=0.9, penalty="l1", over=over)["reweight"] == theta


def test_a_target_alone_is_enough(cli: Any, tmp_path: Path) -> None:
    """Within 100 steps, exactly, and with the values of the recipe in the configuration and in the command."""
    run = tmp_path / "run"
    ended = cli("train", "--data", "digits", *SHORT, "--sparsity", "0.9", "--strict", "--out", run)
    assert (ended.code, ended.err) == (0, "")
    summary, options = cli.summary(run), json.loads((run / "config.json").read_text())["options"]
    assert summary["target_met"] is True
    assert summary["error"] < 0.2
    assert {name: options[name] for name in LATENT} == LATENT
    assert "--recipe latent" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "why"),
    [("--recipe best", "unknown recipe 'best'"), ("--hold 1", "--hold must be a share"), ("--hold -0.1", "--hold")],
)
def test_bad_recipes_are_refused(cli: Any, tmp_path: Path, words: str, why: str) -> None:
    cli.assert_refused(cli("train", "--data", "digits", "--out", tmp_path / "run", *words.split()), why)


def test_a_resumed_run_keeps_its_recipe(cli: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("train", "--data", "digits", *SHORT, "--sparsity", "0.9", "--epochs", "1", "--out", run).code == 0
    cli.assert_refused(cli("train", "--resume", "--recipe", "proximal", "--out", run), "--recipe", "latent")
    assert cli("train", "--resume", "--out", run).code == 0


@pytest.mark.parametrize("more", [(), ("--lams", "1e-4,1e-2")], ids=["density", "lams"])
def test_a_path_by_its_recipe(cli: Any, tmp_path: Path, more: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    lengths = ("--points", "3", "--epochs-each", "2", "--sparsest", "0.9", "--collapse", "1")
    assert cli("path", "--data", "digits", *SHORT, *lengths, *more, "--out", run).code == 0
    points = [json.loads(line) for line in (run / "path.jsonl").read_text().splitlines()]
    found = [point["sparsity"] for point in points]
    if more:
        assert json.loads((run / "config.json").read_text())["options"]["recipe"] == "proximal"
    else:
        assert found == pytest.approx([0, 0.5, 0.9], abs=1e-3)
