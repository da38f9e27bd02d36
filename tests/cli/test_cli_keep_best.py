"""train with --keep-best and --patience: the right epoch, an exact resume, and what makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from torchlasso.control.hold import hold_start
from torchlasso.runs.evaluation import judge_of
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.quality import Judge
from torchlasso.runs.rows import read_data
from torchlasso.training.evaluation import outputs_of
from torchlasso.training.losses import LOSSES

pytestmark = pytest.mark.slow

DIGITS = ("train", "--data", "digits", "--model", "mlp:width=16,depth=1", "--batch-size", "128")
RISES = ("balanced-accuracy", "macro-f1", "auc", "r2")


def values_of(run: Path, key: str) -> list[float]:
    return [json.loads(line)[f"val_{key}"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def value_now(run: Path, key: str) -> float | None:
    """The figure of the run's model on its validation rows."""
    folder = RunFolder(run)
    experiment = folder.read_experiment()
    model, rows = experiment.build_model(), read_data(experiment.options)[1]
    model.load_state_dict(folder.read_model()[0])
    return judge_of(experiment, rows).value(key, outputs_of(model, rows.validation[0]), rows.validation[1])


@pytest.mark.parametrize(
    ("figure", "data"), [("macro-f1", "classes"), ("log-loss", "classes"), ("error", "classes"), ("mae", "amounts")]
)
def test_the_best_epoch_is_kept(cli: Any, tables: Path, tmp_path: Path, figure: str, data: str) -> None:
    """At a rate that is too high, the last epoch is not the best."""
    run, key = tmp_path / "run", figure.replace("-", "_")
    more = ("--lr", "0.3", "--epochs", "9", "--schedule", "constant", "--keep-best", figure, "--compare", "dense")
    ended = cli.train(tables / f"{data}.csv", run, *more)
    assert (ended.code, ended.err) == (0, "")
    for folder, summary in ((run, cli.summary(run)), (run / "dense", cli.summary(run)["dense"])):
        values = values_of(folder, key)
        best = (max if figure in RISES else min)(values)
        last = max(k for k, value in enumerate(values) if value == best)
        assert summary["kept"] == {
            "epoch": last + 1,
            "counted": 9,
            "measure": key,
            "value": best,
            "stopped_early": False,
        }
        assert summary["validation"]["scores"][key]["value"] == pytest.approx(best)
        assert value_now(folder, key) == pytest.approx(best)
    assert f"Epoch {cli.summary(run)['kept']['epoch']} of 9 is kept, with the best " in ended.out
    assert figure != "log-loss" or cli.summary(run)["kept"]["epoch"] < 9


def test_the_loss_of_the_run_is_a_figure_without_scikit_learn(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "is_possible", lambda: False)
    given = ("--loss", "torch.nn.functional:multi_margin_loss", "--keep-best", "loss")
    assert cli.train(classes, tmp_path / "run", *given).code == 0
    summary = cli.summary(tmp_path / "run")
    assert summary["kept"]["value"] == min(values_of(tmp_path / "run", "loss"))


def test_training_stops_where_no_epoch_is_better(cli: Any, classes: Path, tmp_path: Path) -> None:
    more = ("--lr", "0.3", "--epochs", "60", "--keep-best", "log-loss", "--patience", "4")
    ended = cli.train(classes, tmp_path / "run", *more)
    summary, values = cli.summary(tmp_path / "run"), values_of(tmp_path / "run", "log_loss")
    best = values.index(min(values))
    assert summary["kept"]["stopped_early"] is True
    assert (summary["kept"]["epoch"], summary["epochs"]) == (best + 1, best + 5)
    assert len(values) == best + 5 < 60
    assert "training stops: the log loss on the validation rows was not better for 4 epochs" in ended.out
    assert not [sentence for sentence in summary["warnings"] if "gradient" in sentence]


def test_only_epochs_of_the_hold_count_with_a_target(cli: Any, tmp_path: Path) -> None:
    """Dense epochs have fewer errors, and are not what was asked for."""
    run = tmp_path / "run"
    more = ("--sparsity", "0.9", "--epochs", "12", "--keep-best", "error", "--compare", "dense", "--patience", "2")
    assert cli(*DIGITS, *more, "--out", run).code == 0
    batches = 1294 // 128 + 1
    counted = [epoch for epoch in range(1, 13) if epoch * batches >= hold_start(12 * batches, 0.25)]
    for folder, summary in ((run, cli.summary(run)), (run / "dense", cli.summary(run)["dense"])):
        values = values_of(folder, "error")
        kept = summary["kept"]
        assert kept["epoch"] in counted
        assert kept["value"] == min(values[epoch - 1] for epoch in counted if epoch <= summary["epochs"])
        assert kept["counted"] == summary["epochs"] - counted[0] + 1
    summary = cli.summary(run)
    assert summary["target_met"] is True
    assert abs(summary["nonzero"] - 0.1 * summary["penalised"]) <= 1
    assert summary["stationarity"] is None  # in the hold, there is no penalty


STOPPED = ("--lr", "0.3", "--epochs", "12", "--keep-best", "macro-f1", "--compare", "dense", "--refit", "1")
PATIENCE = {"whole": (), "patient": ("--patience", "2")}


@pytest.fixture(scope="module")
def unstopped(train: Callable[..., Path]) -> dict[str, Path]:
    """The run that nobody stopped, without and with patience; not to be written to."""
    return {name: train(*STOPPED, *more) for name, more in PATIENCE.items()}


@pytest.mark.parametrize("stops", [13, 40, 57])
@pytest.mark.parametrize("patience", PATIENCE)
def test_a_stopped_training_keeps_the_same_epoch(
    cli: Any,
    classes: Path,
    unstopped: dict[str, Path],
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    stops: int,
    patience: str,
) -> None:
    with monkeypatch.context():
        stop(LambdaLR, "step", "before", stops)
        assert cli.train(classes, tmp_path / "run", *STOPPED, *PATIENCE[patience]).code == 130
    monkeypatch.undo()
    assert cli.resume(tmp_path / "run").code == 0
    left, right = cli.contents(tmp_path / "run"), cli.contents(unstopped[patience])
    for part in ("", "dense/"):
        assert left[f"{part}model.safetensors"] == right[f"{part}model.safetensors"]
    assert cli.metrics(tmp_path / "run", timed=False) == cli.metrics(unstopped[patience], timed=False)
    assert cli.summary(tmp_path / "run", timed=False) == cli.summary(unstopped[patience], timed=False)


def test_a_run_stopped_after_its_patience_goes_on_with_the_comparison(
    cli: Any, classes: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--lr", "0.3", "--epochs", "40", "--keep-best", "log-loss", "--patience", "2", "--compare", "dense")
    assert cli.train(classes, tmp_path / "whole", *given).code == 0
    epochs = cli.summary(tmp_path / "whole")["epochs"]
    assert epochs < 40
    with monkeypatch.context():
        stop(RunFolder, "write_checkpoint", "after", epochs + 1)  # the first of the comparison
        assert cli.train(classes, tmp_path / "run", *given).code == 130
    monkeypatch.undo()
    assert cli.resume(tmp_path / "run").code == 0
    assert cli.summary(tmp_path / "run", timed=False) == cli.summary(tmp_path / "whole", timed=False)
    assert len(cli.metrics(tmp_path / "run")) == epochs


def test_a_damaged_best_epoch_is_refused(cli: Any, classes: Path, stopped: Path) -> None:
    """The checkpoint of a run without a best epoch, under a configuration that asks for one."""
    config = json.loads((stopped / "config.json").read_text())
    config["options"]["keep_best"] = "error"
    (stopped / "config.json").write_text(json.dumps(config))
    cli.assert_refused(cli.resume(stopped), "is damaged or from another run")


def test_what_makes_no_sense_is_refused(cli: Any, classes: Path, amounts: Path, tmp_path: Path) -> None:
    run, best = tmp_path / "run", ("--keep-best", "error")
    for data, options, *names in (
        (classes, ("--keep-best", "f1"), "unknown figure 'f1'", "macro-f1"),
        (classes, ("--keep-best", "r2"), "--keep-best r2 does not apply, since the targets are classes", "macro-f1"),
        (amounts, ("--keep-best", "auc"), "--keep-best auc does not apply, since the targets are numbers", "rmse"),
        (
            classes,
            ("--keep-best", "log-loss", "--loss", "torch.nn.functional:multi_margin_loss"),
            "--keep-best log-loss does not apply, since the loss is not cross-entropy; there are: loss, error",
        ),
        (classes, ("--patience", "3"), "--patience needs --keep-best"),
        (classes, (*best, "--patience", "0"), "--patience must be a number of epochs, at least 1; got 0"),
        (classes, (*best, "--validation", "0"), "--keep-best needs validation rows"),
        (
            classes,
            (*best, "--sparsity", "0.5", "--hold", "0"),
            "--keep-best with --sparsity needs epochs that meet the target before the end: give --hold above 0",
        ),
        (classes, (*best, "--shrink", "--over", "units"), "--keep-best and --shrink exclude each other"),
    ):
        cli.assert_refused(cli.train(data, run, *options), *names)
        assert not run.exists()
    few = tmp_path / "few.csv"
    few.write_text("a,label\n" + "".join(f"{k},{k % 9}\n" for k in range(40)))
    cli.assert_refused(
        cli.train(few, run, "--keep-best", "auc"), "--keep-best auc needs validation rows of every class"
    )
    assert not run.exists()


def test_a_figure_that_becomes_infinite_stops_the_training(cli: Any, classes: Path, tmp_path: Path) -> None:
    assert LOSSES["cross-entropy"](torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) > 0
    ended = cli.train(classes, tmp_path / "run", "--lr", "1e30", "--keep-best", "log-loss")
    assert ended.code != 0
    assert "Traceback" not in ended.err


def test_a_refit_is_judged_by_the_same_figure(cli: Any, classes: Path, tmp_path: Path) -> None:
    for name, options, key in (
        ("best", ("--keep-best", "log-loss", "--refit", "2"), "log_loss"),
        ("weighted", ("--class-weight", "balanced", "--refit", "2"), "balanced_accuracy"),
        ("plain", ("--refit", "2"), "error"),
    ):
        ended = cli.train(classes, tmp_path / name, *options)
        assert ended.code == 0
        summary = cli.summary(tmp_path / name)
        refit = summary["refit"]
        assert refit["measure"] == key
        assert refit["kept"] == (
            refit["after"] > refit["before"] if key == "balanced_accuracy" else refit["after"] < refit["before"]
        )
        value = summary["validation"]["scores"][key]["value"]
        assert value == pytest.approx(refit["after" if refit["kept"] else "before"])
        assert f"it changed the validation {key.replace('_', ' ')} from " in ended.out
    assert cli.summary(tmp_path / "best")["refit"]["before"] == cli.summary(tmp_path / "best")["kept"]["value"]
