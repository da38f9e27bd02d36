"""``--weight``: the column of the weights of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from torchlasso.path import follow
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.options import Options
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.rows import read_data

SMALL = ("--model", "mlp:width=4,depth=1", "--epochs", "2", "--lam", "1e-3", "--batch-size", "16")
WEIGHT = ("--weight", "importance")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two groups of rows whose labels contradict each other, of which one has the weight 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).round(4)
    label, weight = (x[:, 0] > 0).astype(int), np.ones(120)
    label[60:], weight[60:] = 1 - label[60:], 0
    lines = [f"{a},{b},{c},{w:g},{y}" for (a, b, c), w, y in zip(x, weight, label, strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,c,importance,label", *lines]))
    return path


def test_every_network_that_is_compared_gets_the_weights(table: Path) -> None:
    options = Options(str(table), model="mlp:width=4,depth=1", weight="importance", refit=1)
    inputs, rows = read_data(options)
    assert inputs.features == ("a", "b", "c")
    assert rows.weights is not None
    assert rows.weights.mean().item() == pytest.approx(1, abs=1e-6)
    assert rows.weights.unique().tolist() == [0, rows.weights.max().item()]
    experiment, known = Experiment(options, inputs), {"weights": rows.weights}
    model = experiment.build_model()
    found = [experiment.recipe(PathOptions(), rows.train, **known).regularisation]
    trainings = [experiment.trainer(model, rows.train, **known), experiment.refit(model, rows.train, **known)]
    trainings += [experiment.compared(name, model, rows.train, 0.1, **known) for name in ("dense", "loss-term")]
    for each in (*found, *(training.trainer.regularisation for training in trainings)):
        assert each.weights is not None
        assert each.weights.weights is rows.weights


def test_a_run_with_weights(cli: Any, table: Path, tmp_path: Path) -> None:
    runs = {
        "plain": (),
        "weighted": WEIGHT,
        "streamed": ("--weight", "importance", "--stream", "always"),
    }
    for name, options in runs.items():
        ignored = ("--ignore", "importance") if name == "plain" else ()
        assert cli.train(table, tmp_path / name, *SMALL, *options, *ignored).code == 0
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in runs}
    assert weights["weighted"] == weights["streamed"] != weights["plain"]
    assert cli.summary(tmp_path / "weighted")["regularisation"] == ["row weights importance"]
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("a,b,c\n1,2,3\n")
    for data in (table, unlabelled):
        assert cli("predict", tmp_path / "weighted", "--data", data, "--out", tmp_path / "out.csv").code == 0


def test_only_the_training_rows_need_weights(cli: Any, table: Path, tmp_path: Path) -> None:
    others = tmp_path / "others.csv"
    others.write_text("a,b,c,label\n" + "".join(f"{i},1,2,{i % 2}\n" for i in range(8)))
    parts = ("--validation", others, "--test", others)
    assert cli.train(table, tmp_path / "run", *SMALL, *WEIGHT, *parts).code == 0
    ended = cli.train(others, tmp_path / "other", *SMALL, *WEIGHT)
    cli.assert_refused(ended, "no column 'importance' for the weights; there are 'a', 'b', 'c'")
    content = pa.csv.read_csv(table)
    for name, kind in (("flags", pa.bool_()), ("numbers", pa.int64())):
        place = content.column_names.index("importance")
        changed = content.set_column(place, "importance", content["importance"].cast(kind))
        pq.write_table(changed, tmp_path / f"{name}.parquet")
        assert cli.train(tmp_path / f"{name}.parquet", tmp_path / name, *SMALL, *WEIGHT).code == 0
    found, wanted = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("flags", "numbers"))
    assert found == wanted


@pytest.mark.slow
def test_the_folds_of_a_path_have_their_weights(cli: Any, table: Path, tmp_path: Path) -> None:
    model, run = ("--model", "mlp:width=4,depth=1"), tmp_path / "run"
    ended = cli(
        "path",
        "--data",
        table,
        *model,
        "--points",
        "3",
        "--epochs",
        "1",
        "--epochs-each",
        "1",
        "--folds",
        "2",
        "--jobs",
        "1",
        *WEIGHT,
        "--out",
        run,
    )
    assert (ended.code, ended.err) == (0, "")
    experiment = RunFolder(run).read_experiment()
    _, rows = read_data(experiment.options)
    (x, y), weights, path = rows.train, rows.weights, experiment.options.path
    assert weights is not None
    assert path is not None
    for k, (kept, held) in enumerate(rows.folds(2, 0)):
        known, tested = (x[kept], y[kept]), (x[held], y[held])
        recipe = experiment.recipe(path, known, weights[kept])
        points = list(follow(experiment.build_model(), recipe, known, tested))
        assert [point.validation for point in RunFolder(run).read_points(k)] == [point.validation for point in points]
    assert experiment.recipe(path, rows.train).regularisation.weights is None


def test_weights_that_do_not_fit_are_refused(
    cli: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_loss.py").write_text("def loss(outputs, y):\n    return outputs.square().mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = table.read_text()
    for content, options, *names in (
        (text, ("--weight", "loads"), "no column 'loads' for the weights"),
        (text, ("--weight", "label"), "the column 'label' cannot be both the weights and something else"),
        (text, ("--weight", "a", "--ignore", "a"), "the column 'a' cannot be both the weights and something else"),
        (text, ("--weight", "a", "--group", "a"), "the column 'a' cannot be both the weights and something else"),
        (
            text.replace(",1,", ",-1,", 1),
            WEIGHT,
            "'importance' has -1 in row 0",
        ),
        (text.replace(",1,", ",,", 1), WEIGHT, "column 'importance' has no weight in row 0"),
        (text.replace(",1,", ",inf,", 1), WEIGHT, "column 'importance' has inf in row 0"),
        (text.replace(",1,", ",1e308,"), WEIGHT, "the weights in column 'importance' are too large, up to 1e+308"),
        (text.replace(",1,", ",much,"), WEIGHT, "'importance' does not hold numbers"),
        (text.replace(",1,", ",0,"), WEIGHT, "all weights of the training rows are 0"),
        (
            text,
            ("--weight", "importance", "--loss", "own_loss:loss"),
            "--weight needs the loss cross-entropy, mse or cox",
        ),
        (text, (*WEIGHT, "--time", "importance", "--event", "label"), "cannot be both the weights and something else"),
        (
            text,
            ("--group", "label", "--time", "a", "--event", "label"),
            "cannot be both the groups and a time or event",
        ),
        (text, ("--ignore", "a", "--time", "a", "--event", "label"), "'a' cannot be both a time or event and ignored"),
    ):
        table.write_text(content)
        cli.assert_refused(cli.train(table, tmp_path / "run", *SMALL, *options), *names)
    cli.assert_refused(
        cli.train("digits", tmp_path / "run", *SMALL, "--weight", "w"),
        "it has no named columns",
        "--weight do not apply",
    )
