"""torchlasso path: the files of its folder, and their agreement with the models of the points and the chosen one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.command_line import succeed
from tests.support.paths import BY_LAM, FILES, RUNS, VALIDATION, error_of, lines_of, means_of, model_of, rows_of
from torchlasso.path import Point, folds_of, follow
from torchlasso.runs.folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path_of(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a finished path, by its name; not to be written to."""
    folder = tmp_path_factory.mktemp("paths")

    def finished(name: str) -> Path:
        table, options = RUNS[name]
        out = folder / name.replace(" ", "-")
        if not out.exists():
            succeed("path", "--data", tables / table, "--out", out, *options)
        return out

    return finished


@pytest.mark.parametrize("name", list(RUNS)[:3])
def test_a_path_is_these_files_and_no_others(cli: Any, path_of: Callable[[str], Path], name: str) -> None:
    points = {f"points/{k:03}.safetensors" for k in range(3 if "density" in name else 5)}
    assert set(cli.contents(path_of(name))) == FILES | points


@pytest.mark.parametrize("name", list(RUNS))
def test_the_lines_describe_the_models_of_the_points(path_of: Callable[[str], Path], tables: Path, name: str) -> None:
    run, (table, _) = path_of(name), RUNS[name]
    train, validation, test = rows_of(tables / table, 0 if name == "folds" else VALIDATION)
    loss = nn.functional.mse_loss if name.startswith("amounts") else nn.functional.cross_entropy
    lines = lines_of(run / "path.jsonl")
    assert [line["index"] for line in lines] == list(range(3 if "density" in name else 5))
    epochs = [20, 20 + 3 * (lines[1]["tries"] - 1), 3 * lines[2]["tries"]] if "density" in name else [6, 3, 3, 3, 3]
    assert [line["epochs"] for line in lines] == epochs
    for line in lines:
        model = model_of(run / "points" / f"{line['index']:03}.safetensors", 1 if name.startswith("amounts") else 3)
        weights = [p for p in model.parameters() if p.dim() == 2]
        zeros, count = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
        assert (line["sparsity"], line["nonzero"]) == (zeros / count, count - zeros)
        for (x, y), found in ((validation, line["validation"]), (test, line["test"])):
            if not len(x):
                assert found is None
                continue
            with torch.no_grad():
                outputs = model(x)
            assert found["loss"] == pytest.approx(loss(outputs, y).item(), rel=1e-5)
            if found["error"] is not None:
                assert found["error"] == pytest.approx((outputs.argmax(1) != y).double().mean().item(), abs=1e-9)
                assert found["accuracy"] == pytest.approx(1 - found["error"])
        loss(model(train[0]), train[1]).backward()
        w, grad = (torch.cat([t.flatten() for t in part]) for part in (weights, [p.grad for p in weights]))
        if lam := line["lam"]:
            far = torch.where(w == 0, (grad.abs() - lam).clamp_min(0), (grad + lam * w.sign()).abs()).div(lam)
            assert line["stationarity"] == {
                "max": pytest.approx(far.max().item(), rel=1e-3),
                "mean": pytest.approx(far.mean().item(), rel=1e-3),
            }
    assert lines[0]["stationarity"] is None


@pytest.mark.parametrize("name", ["classes by lam", "amounts by lam"])
def test_lam_and_zeros_rise_along_the_path(path_of: Callable[[str], Path], name: str) -> None:
    lines = lines_of(path_of(name) / "path.jsonl")
    first, last = (0.005, 0.1) if "classes" in name else (0.01, 0.5)
    expected = [0.0, *np.geomspace(first, last, 4)]
    assert [line["lam"] for line in lines] == pytest.approx(expected, rel=1e-9)
    zeros = [line["sparsity"] for line in lines]
    assert zeros == sorted(zeros)
    assert zeros[0] == 0 < zeros[-1]


def test_by_density_lam_is_found(path_of: Callable[[str], Path]) -> None:
    lines = lines_of(path_of("classes by density") / "path.jsonl")
    lams = [line["lam"] for line in lines]
    assert lams[0] == 0 < lams[1]
    assert lams[1] != 1e-3
    assert lines[0]["sparsity"] == 0 < lines[1]["sparsity"] < 1


@pytest.mark.parametrize("name", list(RUNS))
def test_the_run_has_the_model_of_the_chosen_point(cli: Any, path_of: Callable[[str], Path], name: str) -> None:
    """The sparsest within a standard error of the best, as by default."""
    run = path_of(name)
    lines = lines_of(run / "path.jsonl")
    judged = [(error_of(line["validation"]), line["spread"]) for line in lines] if name != "folds" else means_of(run)
    least, spread = min(judged, key=lambda entry: entry[0])
    allowed = [line for line, (value, _) in zip(lines, judged, strict=True) if value <= least + spread]
    chosen = max(allowed, key=lambda line: line["sparsity"])
    files, summary = cli.contents(run), cli.summary(run)
    assert files["model.safetensors"] == files[f"points/{chosen['index']:03}.safetensors"]
    for key in ("sparsity", "nonzero", "lam", "stationarity"):
        assert summary[key] == chosen[key], key
    for key in ("loss", "accuracy", "error"):
        assert summary[key] == pytest.approx(chosen["test"][key], abs=1e-9), key
    assert summary["epochs"] == sum(line["epochs"] for line in lines)
    assert summary["seconds"] == pytest.approx(sum(line["seconds"] for line in lines))


def test_a_fold_is_a_path_on_its_rows(cli: Any, path_of: Callable[[str], Path], classes: Path) -> None:
    """A fold that is trained in another process has the same figures as in this one."""
    run = path_of("folds")
    points = {f"points/{k:03}.safetensors" for k in range(5)}
    assert set(cli.contents(run)) == FILES | points | {"fold-0.jsonl", "fold-1.jsonl"}
    experiment = RunFolder(run).read_experiment()
    assert experiment.options.path is not None
    (x, y), _, _ = rows_of(classes, 0)
    for k, (kept, held) in enumerate(folds_of(len(y), 2, seed=0)):
        recipe = experiment.recipe(experiment.options.path, (x[kept], y[kept]))
        points = list(follow(experiment.build_model(), recipe, (x[kept], y[kept]), (x[held], y[held])))
        found = RunFolder(run).read_points(k)
        assert [_figures(point) for point in found] == [_figures(point) for point in points]


def _figures(point: Point) -> list[Any]:
    assert point.validation is not None
    return [
        point.index,
        point.lam,
        point.nonzero,
        point.validation.error,
        pytest.approx(point.validation.loss, rel=1e-4),
    ]


@pytest.mark.parametrize("rule", ["best", "within"])
def test_another_rule_chooses_another_point(
    cli: Any, path_of: Callable[[str], Path], amounts: Path, tmp_path: Path, rule: str
) -> None:
    lines = lines_of(path_of("amounts by lam") / "path.jsonl")
    losses = [line["validation"]["loss"] for line in lines]
    tolerance = (sorted(losses)[-2] - min(losses)) * 1.001 if rule == "within" else 0.0  # all but the worst
    options = ["--choose", rule, "--tolerance", f"{tolerance:.6f}"]
    assert cli("path", "--data", amounts, "--out", tmp_path / "run", *RUNS["amounts by lam"][1], *options).code == 0
    assert lines_of(tmp_path / "run" / "path.jsonl", timed=False) == [{**line, "seconds": 0} for line in lines]
    allowed = [line for line in lines if line["validation"]["loss"] <= min(losses) + tolerance]
    chosen = max(allowed, key=lambda line: line["sparsity"])
    assert (chosen["index"] == losses.index(min(losses))) == (rule == "best")
    assert cli.summary(tmp_path / "run")["lam"] == chosen["lam"]


def test_the_configuration_has_the_options_of_the_path(path_of: Callable[[str], Path]) -> None:
    options = json.loads((path_of("folds") / "config.json").read_text())["options"]
    assert (options["epochs"], options["lr"], options["validation"]) == (6, 0.05, 0)
    assert options["path"] == {
        "points": 5,
        "sparsest": 0.995,
        "densest": 0.5,
        "lams": [0.005, 0.1],
        "epochs_each": 3,
        "lr_growth": 1.0,
        "start": "warm",
        "collapse": 1.0,
        "choose": "one-se",
        "tolerance": 0.005,
        "folds": 2,
    }


def test_the_same_options_give_the_same_files_and_the_screen_shows_every_point_and_the_choice(
    cli: Any, path_of: Callable[[str], Path], classes: Path, tmp_path: Path
) -> None:
    ended = cli("path", "--data", classes, "--out", tmp_path / "again", *BY_LAM)
    assert (ended.code, ended.err) == (0, "")
    assert [f"point {k}/5 " in ended.out for k in range(1, 6)] == [True] * 5
    (marked,) = (line for line in ended.out.splitlines() if line.startswith("→"))
    summary = cli.summary(tmp_path / "again")
    assert f"{100 * summary['sparsity']:.1f} %" in marked
    assert f"{summary['nonzero']} weights left, test error {100 * summary['error']:.2f} %." in ended.out
    first, second = cli.contents(path_of("classes by lam")), cli.contents(tmp_path / "again")
    for name in set(first) - {"path.jsonl", "summary.json", "report.html"}:  # which have seconds in them
        assert first[name] == second[name], name
    assert cli.summary(tmp_path / "again", timed=False) == cli.summary(path_of("classes by lam"), timed=False)


@pytest.mark.parametrize("name", ["classes by lam", "amounts by lam", "folds"])
def test_predict_and_report_use_the_chosen_point(
    cli: Any, path_of: Callable[[str], Path], tables: Path, name: str
) -> None:
    run, (table, _) = path_of(name), RUNS[name]
    ended = cli("predict", run, "--data", tables / table)
    assert ended.code == 0
    assert ended.out.count("\n") == 121
    assert "120 rows: " in ended.err
    ended = cli("report", run)
    summary = cli.summary(run)
    assert (ended.code, ended.err) == (0, "")
    assert f"{summary['nonzero']} of {summary['penalised']} remain" in ended.out
    found = json.loads(cli("report", run, "--json").out)
    assert {key: value for key, value in found.items() if key not in ("report", "features_read")} == summary
    assert found["report"]["nonzero"] == summary["nonzero"]


@pytest.mark.parametrize("name", ["classes", "amounts"])
def test_a_path_ends_where_the_model_is_no_better_than_guessing(
    cli: Any, tables: Path, tmp_path: Path, name: str
) -> None:
    """Also at a point that has no weight left, which has no place in the figure."""
    options = [*BY_LAM, "--lams", "0.01,30" if name == "classes" else "0.001,100", "--collapse", "0.25"]
    ended = cli("path", "--data", tables / f"{name}.csv", "--out", tmp_path / "run", *options, "--strict")
    assert (ended.code, ended.err) == (3, "")
    lines = lines_of(tmp_path / "run" / "path.jsonl")
    assert 1 < len(lines) < 5
    said = cli.summary(tmp_path / "run")["warnings"]
    assert [line[9:] for line in ended.out.splitlines() if line.startswith("warning: ")] == said
    assert said[-1].startswith(f"The path ends at point {len(lines)} of 5, with ")
    assert lines[-1]["nonzero"] == 0 or name == "classes"
    best = min(error_of(line["validation"]) for line in lines)
    assert error_of(lines[-1]["validation"]) > 2 * best
    assert cli.summary(tmp_path / "run")["nonzero"] > 0
    assert set(cli.contents(tmp_path / "run")) == FILES | {f"points/{k:03}.safetensors" for k in range(len(lines))}
    before = cli.contents(tmp_path / "run")
    assert cli("path", "--resume", "--out", tmp_path / "run").code == 0  # there is nothing to go on with
    assert cli.contents(tmp_path / "run") == before


def test_reweighted_points_keep_larger_weights(
    cli: Any, path_of: Callable[[str], Path], amounts: Path, tmp_path: Path
) -> None:
    options = [*RUNS["amounts by lam"][1], "--epochs-each", "30", "--choose", "best"]
    for name, more in (("plain", ()), ("reweighted", ("--reweight", "0.1"))):
        assert cli("path", "--data", amounts, "--out", tmp_path / name, *options, *more).code == 0
    plain, reweighted = (lines_of(tmp_path / name / "path.jsonl")[-1] for name in ("plain", "reweighted"))
    assert plain["lam"] == reweighted["lam"]
    assert reweighted["validation"]["loss"] < plain["validation"]["loss"]  # λ is large: its bias is what counts


@pytest.mark.usefixtures("whole_pages")
def test_without_matplotlib_there_is_no_figure(
    cli: Any, path_of: Callable[[str], Path], classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    ended = cli("path", "--data", classes, "--out", tmp_path / "run", *BY_LAM)
    assert (ended.code, ended.err) == (0, "")
    assert "no figure: drawing needs matplotlib: pip install 'torchlasso[figures]'\n" in ended.out
    points = {f"points/{k:03}.safetensors" for k in range(5)}
    assert set(cli.contents(tmp_path / "run")) == {name for name in FILES if "frontier" not in name} | points
    assert "frontier" not in ended.out
    assert cli.summary(tmp_path / "run", timed=False) == cli.summary(path_of("classes by lam"), timed=False)


def test_points_of_earlier_versions_are_read(path_of: Callable[[str], Path], tmp_path: Path) -> None:
    """They have one training each, and no remark."""
    run = path_of("classes by density")
    lines = [{k: v for k, v in line.items() if k not in ("tries", "miss")} for line in lines_of(run / "path.jsonl")]
    (tmp_path / "path.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    points = RunFolder(tmp_path).read_points()
    assert [(point.tries, point.miss) for point in points] == [(1, None)] * 3
    now = RunFolder(run).read_points()
    assert [point.lam for point in points] == [point.lam for point in now]
    assert now[2].tries > 1
