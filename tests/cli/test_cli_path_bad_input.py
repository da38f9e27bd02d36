"""torchlasso path on bad input: exit code 2, one line that names the thing, and all earlier files as they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.command_line import succeed
from torchlasso import engine

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--validation", "0.25")
OPTIONS += ("--epochs", "2", "--epochs-each", "1", "--points", "3", "--collapse", "1")
BY_LAM = (*OPTIONS, "--lams", "0.005,0.1")
MODEL = """
import os

from torch import nn


def linear(input_shape, outputs):
    if os.getpid() != PARENT:
        os._exit(1)  # as where memory is short
    return nn.Linear(input_shape[0], outputs)
"""


@pytest.fixture(scope="module")
def paths(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished path; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("paths")
    succeed("path", "--data", classes, "--out", folder / "done", *BY_LAM, short=True)
    return folder / "done"


@pytest.fixture
def run(paths: Path, tmp_path: Path) -> Path:
    """A copy of the finished path."""
    return Path(shutil.copytree(paths, tmp_path / "run"))


BAD = [
    # the arguments, and the parts that the message must contain
    ("--points 1000000000", "10,000"),
    ("--points 1", "2 points", "1"),
    ("--points 0", "points", "0"),
    ("--points abc", "--points"),
    ("--sparsest 2", "sparsest", "2"),
    ("--sparsest 1", "sparsest", "1"),
    ("--sparsest nan", "sparsest", "nan"),
    ("--sparsest 0.3", "sparsest", "0.3"),
    ("--densest 0", "0"),
    ("--densest 0.999", "0.999"),
    ("--lams 3", "--lams", "3"),
    ("--lams 1,x", "--lams", "1,x"),
    ("--lams 1,2,3", "--lams", "3"),
    ("--lams 2,1", "2", "1"),
    ("--lams 1,1", "increase"),
    ("--lams 0,1", "above 0"),
    ("--lams -1,1", "above 0"),
    ("--lams nan,1", "nan"),
    ("--lams 1,inf", "inf"),
    ("--choose none", "none", "one-se"),
    ("--choose one_se", "one_se", "one-se"),
    ("--tolerance -0.1", "--tolerance", "-0.1"),
    ("--tolerance 1", "--tolerance", "1"),
    ("--tolerance nan", "--tolerance", "nan"),
    ("--folds 1", "--folds", "1"),
    ("--folds 0", "--folds", "0"),
    ("--folds 1000", "folds", "72", "1000"),
    ("--epochs-each 0", "--epochs-each", "0"),
    ("--start hot", "hot", "warm", "cold"),
    ("--start cold", "--epochs-each", "cold"),
    ("--engine dask", "dask", "joblib", "ray"),
    ("--jobs 0", "--jobs", "0"),
    ("--jobs 2", "--jobs 2", "--folds", "--start cold"),
    ("--threads 0", "--threads", "0"),
    ("--lr-growth 0", "--lr-growth", "0.0"),
    ("--lr-growth nan", "--lr-growth", "nan"),
    ("--epochs 0", "epochs"),
    ("--collapse 0", "--collapse", "0"),
    ("--collapse 1.5", "--collapse", "1.5"),
    ("--collapse nan", "--collapse", "nan"),
    ("--validation 0", "--validation", "--folds"),
    ("--validation 1", "--validation"),
    ("--reweight nan", "theta", "nan"),
    ("--lam nan", "lam"),
    ("--lams '' --lam 0", "lam", "0"),
    ("--lams '' --densest 0.99 --sparsest 0.995", "0.99"),
    ("--penalty l2", "l2"),
    ("--penalty mcp --over singular-values --reweight 0.1", "SingularValues"),
    ("--model lenet-6", "lenet-6"),
    ("--optimizer adm", "adm"),
    ("--label nothing", "nothing"),
    ("--sparsity 0.9", "--sparsity"),
    ("--refit 2", "--refit"),
    ("surplus", "surplus"),
]


@pytest.mark.parametrize(("given", "names"), [(o[0], o[1:]) for o in BAD], ids=[o[0] for o in BAD])
def test_options(cli: Any, run: Path, classes: Path, given: str, names: tuple[str, ...]) -> None:
    """With --overwrite, the path that is there stays."""
    before = cli.contents(run)
    words = ["" if word == "''" else word for word in given.split(" ")]
    cli.assert_refused(cli("path", "--data", classes, "--out", run, "--overwrite", *BY_LAM, *words), *names)
    assert cli.contents(run) == before


CHANGES = [
    ("--points", "4"),
    ("--lams", "0.005,0.2"),
    ("--sparsest", "0.9"),
    ("--densest", "0.3"),
    ("--collapse", "0.5"),
]
CHANGES += [("--epochs-each", "2"), ("--choose", "best"), ("--tolerance", "0.1"), ("--folds", "2")]
CHANGES += [("--lam", "0.5"), ("--epochs", "3"), ("--reweight", "0.1"), ("--seed", "1"), ("--data", "digits")]


@pytest.mark.parametrize(("option", "value"), CHANGES)
def test_changed_options_are_refused(cli: Any, run: Path, option: str, value: str) -> None:
    before = cli.contents(run)
    ended = cli("path", "--resume", "--out", run, option, value)
    cli.assert_refused(ended, option, value.rpartition(",")[2])
    assert cli.contents(run) == before


def test_a_path_is_not_a_training(cli: Any, run: Path, copied: Callable[..., Path]) -> None:
    """Each command resumes its own runs, and for other runs it names the command that resumes them."""
    trained = copied()
    for command, folder, other in (("train", run, "torchlasso path"), ("path", trained, "torchlasso train")):
        before = cli.contents(folder)
        cli.assert_refused(cli(command, "--resume", "--out", folder), str(folder), other)
        assert cli.contents(folder) == before


def test_a_path_is_not_replaced_unasked(cli: Any, run: Path, classes: Path) -> None:
    before = cli.contents(run)
    cli.assert_refused(cli("path", "--data", classes, "--out", run, *BY_LAM), str(run), "--resume", "--overwrite")
    cli.assert_refused(cli("path", "--out", run, "--resume", "--overwrite"), "--resume", "--overwrite")
    assert cli.contents(run) == before


def test_overwrite_removes_all_earlier_files(cli: Any, run: Path, copied: Callable[..., Path], classes: Path) -> None:
    """A path in the place of a training with its comparisons, and the other way round."""
    (run / "notes.txt").write_text("mine")
    (run / "fold-0.jsonl").write_text("")
    assert cli.train(classes, run, "--overwrite", "--epochs", "1").code == 0
    trained = {"config.json", "metrics.jsonl", "checkpoint/state.safetensors", "model.safetensors", "summary.json"}
    assert set(cli.contents(run)) == trained | {"report.html", "notes.txt"}
    other = copied()
    assert cli("path", "--data", classes, "--out", other, "--overwrite", *BY_LAM).code == 0
    points = {f"points/{k:03}.safetensors" for k in range(3)}
    files = {"config.json", "path.jsonl", "model.safetensors", "summary.json", "report.html", "frontier.png"}
    assert set(cli.contents(other)) == files | points | {"frontier.svg"}


@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_path_that_is_not_finished(cli: Any, run: Path, classes: Path, command: str) -> None:
    (run / "model.safetensors").unlink()
    cli.assert_refused(cli(command, run, *(["--data", classes] if command == "predict" else [])), str(run))


def test_an_unfinished_run_names_the_command_that_resumes_it(cli: Any, run: Path) -> None:
    (run / "summary.json").unlink()
    cli.assert_refused(cli("report", run), f"torchlasso path --resume --out {run}")


DAMAGES: dict[str, Callable[[list[str]], str]] = {
    "cut": lambda lines: "\n".join(lines)[:-20],
    "no JSON": lambda lines: "points\n",
    "a number": lambda lines: "1\n",
    "nothing in it": lambda lines: "{}\n",
    "a list": lambda lines: "[]\n",
    "a point is missing": lambda lines: "\n".join([lines[0], lines[2]]),
    "another order": lambda lines: "\n".join(lines[::-1]),
    "twice": lambda lines: "\n".join([lines[0], lines[0]]),
    "an entry is missing": lambda lines: _edited(lines, "lam", None),
    "sparsity of text": lambda lines: _edited(lines, "sparsity", "much"),
    "validation of a number": lambda lines: _edited(lines, "validation", 1),
    "a fraction of a weight": lambda lines: _edited(lines, "nonzero", 1.5),
}


def _edited(lines: list[str], key: str, value: Any) -> str:
    first = json.loads(lines[0])
    if value is None:
        del first[key]
    else:
        first[key] = value
    return "\n".join([json.dumps(first), *lines[1:]])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_points(cli: Any, run: Path, damage: Callable[[list[str]], str]) -> None:
    (run / "path.jsonl").write_text(damage((run / "path.jsonl").read_text().splitlines()))
    before = cli.contents(run)
    cli.assert_refused(cli("path", "--resume", "--out", run), "path.jsonl", "damaged")
    assert cli.contents(run) == before


def test_points_of_bytes(cli: Any, run: Path) -> None:
    (run / "path.jsonl").write_bytes(b"\xff\xfe\x00")
    cli.assert_refused(cli("path", "--resume", "--out", run), "path.jsonl")


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "of text": lambda file: file.write_text("weights"),
    "another shape": lambda file: save_file({k: w[:1] for k, w in load_file(file).items()}, file),
    "a weight is missing": lambda file: save_file(dict(list(load_file(file).items())[1:]), file),
}


@pytest.mark.parametrize("done", [2, 3])
@pytest.mark.parametrize("damage", WEIGHTS.values(), ids=WEIGHTS)
def test_damaged_weights(cli: Any, run: Path, damage: Callable[[Path], Any], done: int) -> None:
    """The weights of the last point, from which a path is resumed."""
    lines = (run / "path.jsonl").read_text().splitlines(keepends=True)
    (run / "path.jsonl").write_text("".join(lines[:done]))
    damage(run / "points" / f"{done - 1:03}.safetensors")
    before = cli.contents(run)
    cli.assert_refused(cli("path", "--resume", "--out", run), "points")
    assert cli.contents(run) == before


def test_a_damaged_fold(cli: Any, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["options"]["path"]["folds"] = 2
    (run / "config.json").write_text(json.dumps(config))
    for k in (0, 1):
        (run / f"fold-{k}.jsonl").write_text("{}\n")
    before = cli.contents(run)
    cli.assert_refused(cli("path", "--resume", "--out", run), "fold-0.jsonl", "damaged")
    assert cli.contents(run) == before


CONFIG = {"points": 1, "lams": [1.0], "choose": "none", "collapse": 0, "epochs_each": "two", "tolerance": None}


@pytest.mark.parametrize(("key", "value"), CONFIG.items())
def test_a_damaged_configuration(cli: Any, run: Path, classes: Path, key: str, value: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    config["options"]["path"][key] = value
    (run / "config.json").write_text(json.dumps(config))
    before = cli.contents(run)
    for command in (["path", "--resume", "--out", run], ["report", run], ["predict", run, "--data", classes]):
        cli.assert_refused(cli(*command), "config.json", "damaged")
    assert cli.contents(run) == before


def test_a_loss_that_becomes_nan_leaves_the_points_before(cli: Any, amounts: Path, tmp_path: Path) -> None:
    options = [*BY_LAM, "--model", "mlp:depth=0", "--optimizer", "sgd", "--lr", "20", "--schedule", "constant"]
    ended = cli("path", "--data", amounts, "--out", tmp_path / "run", *options, "--epochs", "1", "--epochs-each", "20")
    cli.assert_refused(ended, "at step ", "--lr")
    assert set(cli.contents(tmp_path / "run")) == {"config.json", "path.jsonl", "points/000.safetensors"}


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_folds_whose_processes_die_again_and_again(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DEATHS", 1)  # as often as it takes; test_engine has them all
    (tmp_path / "dying_models.py").write_text(MODEL.replace("PARENT", str(os.getpid())))
    monkeypatch.chdir(tmp_path)
    options = [*BY_LAM, "--model", "dying_models:linear", "--folds", "2", "--jobs", "2"]
    ended = cli("path", "--data", classes, "--out", tmp_path / "run", *options)
    cli.assert_refused(ended, "died", "memory", "--resume")


@pytest.mark.parametrize("points", ["2", "4"])
def test_the_largest_seed_will_do(cli: Any, classes: Path, tmp_path: Path, points: str) -> None:
    """Each point has its own, made from it."""
    options = [*BY_LAM, "--points", points, "--seed", str(2**63 - 1)]
    ended = cli("path", "--data", classes, "--out", tmp_path / "run", *options)
    assert (ended.code, ended.err) == (0, "")
