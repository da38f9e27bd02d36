"""Bad input: exit code 2, one line on stderr that names the thing, and all earlier files as they were."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import programs


@pytest.fixture(scope="module")
def bad(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    table = (tables / "classes.csv").read_text().splitlines()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    y = np.arange(40) % 2

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    pq.write_table(pa.table({**{f"f{i}": x[:, i] for i in range(5)}, "label": y}), folder / "cut.parquet")
    np.savez(folder / "cut.npz", x=x, y=y)
    images = struct.pack(">4B3I", 0, 0, 8, 3, 40, 4, 4) + bytes(40 * 16)
    (folder / "cut-images-idx3-ubyte").write_bytes(images)
    (folder / "cut-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 40) + bytes(y.tolist()))
    (folder / "zipped-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    shutil.copy(folder / "cut-labels-idx1-ubyte", folder / "zipped-labels-idx1-ubyte")
    for name in ("cut.parquet", "cut.npz", "cut-images-idx3-ubyte", "zipped-images-idx3-ubyte.gz"):
        cut(folder / name)
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text(table[0] + "\n")
    (folder / "ragged.csv").write_text("\n".join([*table, "1,2"]))
    (folder / "text.csv").write_text("\n".join([*table, "red,1,1,1,1,low"]))
    (folder / "one-class.csv").write_text("\n".join([table[0], *(line for line in table if line.endswith("low"))]))
    (folder / "unlabelled.csv").write_text("\n".join(line.rpartition(",")[0] for line in table))
    (folder / "notes.docx").write_text("hello")
    np.savez(folder / "negative.npz", x=x, y=np.where(y, 1, -1))
    np.savez(folder / "beyond.npz", x=x, y=y, x_test=x, y_test=y + 1)
    np.savez(folder / "nan.npz", x=np.where(x > 2, np.nan, x), y=y)
    np.savez(folder / "pickled.npz", x=np.array([{}] * 40, dtype=object), y=y)
    np.savez(folder / "uneven.npz", x=x, y=y[:-1])
    np.savez(folder / "other-width.npz", x=x[:, :3], y=y, x_test=x, y_test=y)
    return folder


DATA = {
    "missing file": ("no/such.csv", "no/such.csv"),
    "missing set": ("nothing", "nothing"),
    "no text": ("", "''"),
    "truncated Parquet": ("{bad}/cut.parquet", "cut.parquet"),
    "truncated NPZ": ("{bad}/cut.npz", "cut.npz"),
    "truncated IDX": ("{bad}/cut-images-idx3-ubyte", "cut-images-idx3-ubyte"),
    "truncated gzipped IDX": ("{bad}/zipped-images-idx3-ubyte.gz", "zipped-images-idx3-ubyte.gz"),
    "empty CSV": ("{bad}/empty.csv", "empty.csv"),
    "CSV without rows": ("{bad}/header.csv", "header.csv"),
    "CSV with a short row": ("{bad}/ragged.csv", "ragged.csv"),
    "NaN in an NPZ": ("{bad}/nan.npz", "nan.npz", "missing or infinite"),
    "text in a column of numbers": ("{bad}/text.csv", "text.csv", "'a'", "'red'", "--categories"),
    "no label column": ("{bad}/unlabelled.csv", "unlabelled.csv", "--label"),
    "one class": ("{bad}/one-class.csv", "one-class.csv", "low"),
    "another kind of file": ("{bad}/notes.docx", "notes.docx"),
    "negative labels": ("{bad}/negative.npz", "negative.npz", "-1", "unless --task is given"),
    "a test label that training has not": ("{bad}/beyond.npz", "beyond.npz", "'2'"),
    "pickled objects": ("{bad}/pickled.npz", "pickled.npz"),
    "fewer labels than rows": ("{bad}/uneven.npz", "uneven.npz", "39"),
    "test rows of another width": ("{bad}/other-width.npz", "other-width.npz"),
    "no such module": ("no_such_module:rows", "no_such_module"),
    "no such function": ("json:no_such_function", "no_such_function"),
}


@pytest.mark.parametrize(("spec", "names"), [(v[0], v[1:]) for v in DATA.values()], ids=DATA)
def test_data(cli: Any, copied: Callable[..., Path], bad: Path, spec: str, names: tuple[str, ...]) -> None:
    """With --overwrite, the run that is there stays."""
    run = copied()
    before = cli.contents(run)
    cli.assert_refused(cli.train(spec.format(bad=bad), run, "--overwrite"), *names)
    assert cli.contents(run) == before


OPTIONS = [
    # the arguments, and the parts that the message must contain
    ("--label nothing", "nothing", "classes.csv"),
    ("--ignore nothing", "nothing", "classes.csv"),
    ("--ignore a,b,c,d,e", "classes.csv"),
    ("--model lenet-6", "lenet-6", "lenet-5"),
    ("--model cnn", "cnn"),
    ("--model lenet-5", "lenet-5"),
    ("--model resnet-20", "resnet-20"),
    ("--model mlp:width=0", "width"),
    ("--model mlp:width=abc", "width"),
    ("--model mlp:wide=8", "wide", "width"),
    ("--model mlp:depth=1,width", "width"),
    ("--model no_such_module:build", "no_such_module"),
    ("--model json:build", "build"),
    ("--model {models}:no_module", "no_module"),
    ("--penalty l2", "l2", "l1"),
    ("--penalty ''", "penalty"),
    ("--penalty mcp:gama=3", "gama", "gamma"),
    ("--penalty mcp:gamma=abc", "gamma", "abc"),
    ("--penalty mcp:gamma=-1", "gamma"),
    ("--penalty mcp:gamma=nan", "gamma"),
    ("--penalty mcp:gamma", "gamma"),
    ("--penalty elastic-net:l1_ratio=2", "l1_ratio"),
    ("--penalty l1:over=filters", "over"),
    ("--over channels", "channels"),
    ("--over heads:n=0", "n"),
    ("--over heads:n=3", "Heads", "3"),
    ("--over heads:n=1.5", "n", "1.5"),
    ("--over heads:m=3", "m"),
    ("--over heads:n=abc", "n", "abc"),
    ("--over chunks:n=2.5", "n", "2.5"),
    ("--over chunks:n=0", "n"),
    ("--over singular-values", "SingularValues"),
    ("--penalty log-sum --over filters", "LogSum", "Filters"),
    ("--penalty l-half --over rows", "LHalf", "Rows"),
    ("--optimizer adm", "adm", "adam"),
    ("--optimizer lbfgs", "lbfgs"),
    ("--optimizer adam:beta=0.9", "beta"),
    ("--optimizer adam:betas=0.9", "betas"),
    ("--optimizer adam:eps=abc", "eps"),
    ("--optimizer adam:eps=-1", "eps"),
    ("--optimizer sgd:momentum=abc", "momentum"),
    ("--optimizer sgd:momentum=-1", "momentum"),
    ("--optimizer sgd:nesterov=true", "esterov"),
    ("--optimizer adam:differentiable=true", "differentiable"),
    ("--optimizer adam:foreach=true,fused=true", "fused"),
    ("--optimizer adam:capturable=true", "capturable"),
    ("--loss hinge", "hinge"),
    ("--loss mse", "mse"),
    ("--loss no_such_module:loss", "no_such_module"),
    ("--schedule cosin", "cosin", "cosine"),
    ("--compare sparse", "sparse", "dense"),
    ("--compare dense,sparse", "sparse"),
    ("--device gpu", "gpu"),
    ("--device cuda:99", "cuda:99"),
    ("--device meta", "meta"),
    ("--lam -1", "lam"),
    ("--lam nan", "lam"),
    ("--lam inf", "lam"),
    ("--lam abc", "lam"),
    ("--lr 0", "lr"),
    ("--lr -0.1", "lr"),
    ("--lr nan", "lr"),
    ("--lr inf", "lr"),
    ("--lr abc", "lr"),
    ("--lr 1e60", "lr"),  # too large for a weight
    ("--epochs 0", "--epochs", "at least 1"),
    ("--epochs -3", "epochs"),
    ("--epochs 1.5", "epochs"),
    ("--batch-size 0", "--batch-size", "at least 1"),
    ("--batch-size abc", "batch-size"),
    ("--batch-size 99999999999999999999", "batch-size", "2^63"),
    ("--refit 99999999999999999999", "refit", "2^63"),
    ("--validation 1.5", "validation"),
    ("--validation 1", "validation"),
    ("--validation -0.1", "validation"),
    ("--validation nan", "validation"),
    ("--validation 0.0001", "validation"),
    ("--seed abc", "seed"),
    ("--seed 99999999999999999999", "seed"),
    ("--no-such-option 1", "--no-such-option"),
    ("surplus", "surplus"),
]


@pytest.mark.parametrize(("given", "names"), [(o[0], o[1:]) for o in OPTIONS], ids=[o[0] for o in OPTIONS])
def test_options(
    cli: Any, copied: Callable[..., Path], classes: Path, models: str, given: str, names: tuple[str, ...]
) -> None:
    run = copied()
    before = cli.contents(run)
    words = ["" if word == "''" else word for word in given.format(models=models).split(" ")]
    cli.assert_refused(cli.train(classes, run, "--overwrite", *words), *names)
    assert cli.contents(run) == before


COMMANDS = [
    (["nothing"], "nothing"),
    (["--nothing"], "--nothing"),
    (["train"], "--out"),
    (["train", "--out", "{tmp}/new"], "--data"),
    (["train", "--data", "digits"], "--out"),
    (["train", "--data", "digits", "--out"], "--out"),
    (["train", "--data", "digits", "--out", ""], "--out"),
    (["report"], "run"),
    (["report", "{tmp}/new"], "{tmp}/new"),
    (["report", "{tmp}"], "{tmp}"),
    (["predict", "{tmp}/new", "--data", "digits"], "{tmp}/new"),
    (["predict", "{tmp}"], "--data"),
]


@pytest.mark.parametrize(("arguments", "name"), COMMANDS, ids=[" ".join(c[0]) for c in COMMANDS])
def test_commands(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str) -> None:
    monkeypatch.chdir(tmp_path)
    cli.assert_refused(cli(*(word.format(tmp=tmp_path) for word in arguments)), name.format(tmp=tmp_path))
    assert not list(tmp_path.iterdir())


def test_without_a_command_the_help_is_shown(cli: Any) -> None:
    ended = cli()
    assert "train" in ended.out + ended.err
    assert "error:" not in ended.err


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/torchlasso/run", "/proc/torchlasso"])
def test_a_folder_that_cannot_be_made(cli: Any, classes: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / name  # an absolute name stays as it is
    cli.assert_refused(cli.train(classes, out), str(out) if name == "file" else str(out.parent))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_of_predictions_that_cannot_be_written(cli: Any, finished: Path, classes: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "no" / "p.csv"):
        ended = cli("predict", finished / "classes", "--data", classes, "--out", out)
        cli.assert_refused(ended, str(out.name))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_program_too_says_it_in_one_line(classes: Path, tmp_path: Path) -> None:
    done = programs.run("train", "--data", classes, "--lam", "-1", "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: --lam ")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


# Rows that do not fit the model that is to predict them: "classes" was trained on five named columns.
ROWS = {
    "no-e.csv": ("a,b,c,d\n1,2,3,4\n", "'e'"),
    "more.csv": ("a,b,c,d,e,f\n1,2,3,4,5,6\n", "'f'"),
    "other-label.csv": ("a,b,c,d,e,label\n1,2,3,4,5,enormous\n", "enormous"),
    "text.csv": ("a,b,c,d,e\n1,2,3,4,five\n", "'e'"),
    "none.csv": ("a,b,c,d,e\n", "none.csv"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_do_not_fit(cli: Any, finished: Path, tmp_path: Path, name: str) -> None:
    content, word = ROWS[name]
    (tmp_path / name).write_text(content)
    cli.assert_refused(cli("predict", finished / "classes", "--data", tmp_path / name), word)


def test_rows_of_another_shape(cli: Any, finished: Path, tables: Path, tmp_path: Path) -> None:
    cli.assert_refused(cli("predict", finished / "classes", "--data", "digits"), "digits")
    assert cli.train(tables / "both.npz", tmp_path / "run").code == 0
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 6)))
    cli.assert_refused(cli("predict", tmp_path / "run", "--data", tmp_path / "wide.npz"), "wide.npz", "6", "5")
    cli.assert_refused(cli("predict", tmp_path / "run", "--data", "digits"), "digits")
    cli.assert_refused(cli("predict", tmp_path / "run", "--data", tmp_path / "missing.npz"), "missing.npz")


def test_labels_that_a_regression_cannot_be_compared_with(
    cli: Any, finished: Path, classes: Path, tmp_path: Path
) -> None:
    """Text, and more targets a row than the model has outputs."""
    cli.assert_refused(cli("predict", finished / "amounts", "--data", classes), "classes.csv", "label")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 2))
    np.savez(tmp_path / "one.npz", x=x, y=y[:, 0])
    np.savez(tmp_path / "two.npz", x=x, y=y)
    assert cli.train(tmp_path / "one.npz", tmp_path / "run").code == 0
    cli.assert_refused(cli("predict", tmp_path / "run", "--data", tmp_path / "two.npz"), "two.npz")
