"""Training on rows that stay on the disk: the same run as in memory, also after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.optim.lr_scheduler import LambdaLR

from tests.data.conftest import encode, save_images

pytestmark = pytest.mark.usefixtures("own_cache")

IMAGES = ("--model", "mlp:width=8,depth=1", "--epochs", "2", "--batch-size", "10", "--lam", "0.01")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name, count in (("train", 60), ("test", 20)):
        pixels = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        labels = [int(each.mean() > 127.5) for each in pixels]
        save_images(tmp_path / "data" / f"{name}.parquet", [encode(each, "JPEG") for each in pixels], labels)
    return tmp_path / "data"


def interrupted(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    """Make the ``call``-th call of a function raise KeyboardInterrupt."""
    calls = iter(range(1, 1000))

    def stopping(*args: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*args)

    return stopping


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_images_give_the_same_weights_as_in_memory(cli: Any, images: Path, tmp_path: Path) -> None:
    more = ("--augment", "crop", "--input-dropout", "0.2", "--compare", "dense")
    assert cli.train(images, tmp_path / "memory", *IMAGES, *more).code == 0
    ended = cli.train(images, tmp_path / "disk", *IMAGES, *more, "--stream", "always", "--workers", "1")
    assert ended.code == 0
    assert "The rows stay on the disk and are read a batch at a time." in ended.out
    assert any("The rows stay on the disk" in note for note in cli.summary(tmp_path / "disk")["data"]["notes"])
    for part in ("", "dense"):
        assert weights(tmp_path / "disk" / part) == weights(tmp_path / "memory" / part)
        left, right = (cli.metrics(tmp_path / name / part, timed=False) for name in ("disk", "memory"))
        assert left == right
    found, wanted = (cli.summary(tmp_path / name, timed=False) for name in ("disk", "memory"))
    assert found | {"data": None} == wanted | {"data": None}


@pytest.mark.slow
def test_a_table_resumes_within_an_epoch(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--save-every", "2", "--input-dropout", "0.2")
    assert cli.train(classes, tmp_path / "memory", *options).code == 0
    with monkeypatch.context() as patched:
        patched.setattr(LambdaLR, "step", interrupted(LambdaLR.step, call=7))
        assert cli.train(classes, tmp_path / "disk", *options, "--stream", "always").code == 130
    assert cli.resume(tmp_path / "disk").code == 0
    assert weights(tmp_path / "disk") == weights(tmp_path / "memory")


@pytest.mark.slow
def test_folds_of_a_path_stay_on_the_disk(cli: Any, images: Path, tmp_path: Path) -> None:
    found = []
    for stream in ("never", "always"):
        options = (
            "--lams",
            "0.01,0.1",
            "--folds",
            "2",
            "--epochs",
            "1",
            "--epochs-each",
            "1",
            "--jobs",
            "1",
            "--stream",
            stream,
        )
        run = cli("path", "--data", images, "--out", tmp_path / stream, *IMAGES[:2], *options)
        assert run.code == 0, run.err
        found.append([(tmp_path / stream / f"fold-{k}.jsonl").read_text() for k in range(2)])
    untimed = [[line.split('"seconds"')[0] for text in each for line in text.splitlines()] for each in found]
    assert untimed[0] == untimed[1]


@pytest.mark.slow
def test_predictions_are_those_of_rows_in_memory(cli: Any, images: Path, tmp_path: Path) -> None:
    assert cli.train(images, tmp_path / "run", *IMAGES).code == 0
    texts = []
    for stream, workers in (("never", 0), ("always", 1)):
        found = cli("predict", tmp_path / "run", "--data", images, "--stream", stream, "--workers", workers)
        assert found.code == 0, found.err
        assert ("stay on the disk" in found.err) == (stream == "always")
        texts.append(found.out)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("gaps", [False, True])
def test_predictions_of_tables_are_those_of_rows_in_memory(cli: Any, tmp_path: Path, gaps: bool) -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=40), "b": rng.normal(size=40), "label": np.arange(40) % 2}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert cli.train(tmp_path / "a.parquet", tmp_path / "run").code == 0
    if gaps:
        columns["b"][3] = np.nan
        pq.write_table(pa.table(dict(reversed(columns.items()))), tmp_path / "a.parquet")
    texts = []
    for stream in ("never", "always"):
        found = cli("predict", tmp_path / "run", "--data", tmp_path / "a.parquet", "--stream", stream)
        assert found.code == 0, found.err
        assert (
            "gaps become the mean of training, since it has none there (b 1)" in " ".join(found.err.split())
        ) == gaps
        texts.append(found.out)
    assert texts[0] == texts[1]


def test_bad_values_are_refused(cli: Any, classes: Path, tables: Path, tmp_path: Path) -> None:
    cli.assert_refused(cli.train(classes, tmp_path / "a", "--workers", "-1"), "--workers", "at least 0")
    cli.assert_refused(cli.train(classes, tmp_path / "a", "--stream", "sometimes"), "stream", "sometimes", "auto")
    cli.assert_refused(cli.train(tables / "both.npz", tmp_path / "a", "--stream", "always"), "read into memory")
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_one_line(cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = __import__("shutil").disk_usage(tmp_path)
    monkeypatch.setattr("torchlasso.data.stored.cache.shutil.disk_usage", lambda _: usage._replace(free=0))
    cli.assert_refused(cli.train(classes, tmp_path / "a", "--stream", "always"), "classes.csv", "TORCHLASSO_CACHE")
    assert not (tmp_path / "a").exists()


def test_a_cache_that_cannot_be_made_is_one_line(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHLASSO_CACHE", str(tmp_path / "file" / "cache"))
    cli.assert_refused(cli.train(classes, tmp_path / "a", "--stream", "always"), "TORCHLASSO_CACHE", "classes.csv")


def test_a_damaged_file_is_named(cli: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": np.arange(100.0), "y": np.arange(100) % 2}), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[20:200] = bytes(180)
    (tmp_path / "a.parquet").write_bytes(content)
    cli.assert_refused(cli.train(tmp_path / "a.parquet", tmp_path / "run", "--stream", "always"), "a.parquet")
