"""Categories as embeddings: trained, selected, compacted, exported, predicted, and read from the disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command_line import succeed
from torchlasso.runs.finished import open_run

pytestmark = pytest.mark.slow

TRAIN = ("--model", "mlp:width=16,depth=1", "--encoding", "embedding", "--batch-size", "32", "--lr", "0.02")


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows: the price follows the shop, of which there are 30, and a number; a colour says nothing."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("shops") / "shops.csv"
    effects = rng.normal(size=30)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "shop", "colour", "y"])
        for i in range(600):
            a, b, shop = *rng.normal(size=2), int(rng.integers(30))
            name = "" if i % 50 == 7 else f"only {i}" if i % 50 == 9 else f"s{shop}"
            effect = effects[shop] if name == f"s{shop}" else 0.0
            writer.writerow([a, b, name, ["red", "blue", "green"][i % 3], a + 2 * effect + 0.05 * rng.normal()])
    return path


@pytest.fixture(scope="module")
def trained(shops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    succeed("train", "--data", shops, *TRAIN, "--epochs", "15", "--features", "2", "--over", "inputs", "--out", run)
    return run


def test_the_columns_that_matter_are_found(cli: Any, trained: Path) -> None:
    summary = cli.summary(trained)
    assert summary["test"]["scores"]["r2"]["value"] > 0.9
    assert (summary["inputs"], summary["live_inputs"]) == (4, 2)
    assert any(
        "Rows: shop 32, colour 4." in note for note in summary["data"]["notes"]
    )  # 30, others and gaps; 3, others
    run = open_run(str(trained))
    alive = {name for name, p in run.model.named_parameters() if name.startswith("embeddings") and bool((p != 0).any())}
    assert alive == {"embeddings.0.weight"}
    encoding = json.loads((trained / "config.json").read_text())["inputs"]["encoding"]
    assert encoding["embedded"] is True
    assert "only 9" not in encoding["categories"]["shop"]


def test_values_without_a_row_of_their_own_share_one(cli: Any, trained: Path, tmp_path: Path) -> None:
    rows = ["0,0,s1,red", "0,0,new,red", "0,0,other,blue", "0,0,only 9,red", "0,0,,red", "0,0,s2,red"]
    (tmp_path / "new.csv").write_text("\n".join(["a,b,shop,colour", *rows]) + "\n")
    ended = cli("predict", trained, "--data", tmp_path / "new.csv")
    assert ended.code == 0
    found = [float(line.split(",")[1]) for line in ended.out.splitlines()[1:]]
    assert found[1] == found[2] == found[3]  # and the colour is not read
    assert len({*found}) == 4


def test_compaction_and_exports_compute_the_same(cli: Any, trained: Path, tmp_path: Path, whole_pages: None) -> None:
    assert cli("compact", trained).code == 0
    full, small = open_run(str(trained)), open_run(str(trained), compact=True)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    x[:, 2], x[:, 3] = torch.arange(50) % 32, torch.arange(50) % 4
    with torch.no_grad():
        torch.testing.assert_close(small.model(x), full.model(x), rtol=1e-4, atol=1e-5)
    pytest.importorskip("onnxruntime")
    for form in ("onnx", "pt2", "sparse.safetensors"):
        kind = "compressed" if form == "sparse.safetensors" else form
        assert cli("export", trained, "--format", kind, "--compact", "--out", tmp_path / f"small.{form}").code == 0
    page = (trained / "report.html").read_text()
    assert "Read: a, shop." in page
    assert "Not read: b, colour." in page


def test_rows_on_the_disk_give_the_same_weights(cli: Any, shops: Path, tmp_path: Path) -> None:
    weights = []
    for stream in ("never", "always"):
        run = tmp_path / stream
        assert cli("train", "--data", shops, *TRAIN, "--epochs", "2", "--stream", stream, "--out", run).code == 0
        weights.append((run / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_sweep_trains_as_train_does(cli: Any, shops: Path, tmp_path: Path, stream: str) -> None:
    options = ("--data", shops, *TRAIN, "--epochs", "1", "--stream", stream)
    swept = cli("sweep", *options, "--vary", "lam=1e-3,1e-2", "--jobs", "1", "--keep-all", "--out", tmp_path / "sweep")
    assert swept.code == 0, swept.err
    assert cli("train", *options, "--lam", "1e-2", "--out", tmp_path / "run").code == 0
    files = (tmp_path / "run", tmp_path / "sweep" / "trials" / "0002")
    assert len({(folder / "model.safetensors").read_bytes() for folder in files}) == 1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--data", "digits", "--encoding", "embedding"), ("digits", "no columns of categories")),
        (("--encoding", "embed"), ("unknown encoding 'embed'", "one-hot")),
        (("--encoding", "embedding", "--input-dropout", "0.1"), ("--input-dropout", "--encoding embedding")),
    ],
    ids=["no categories", "unknown", "dropout"],
)
def test_what_has_no_embeddings(cli: Any, shops: Path, tmp_path: Path, options: Any, parts: Any) -> None:
    ended = cli("train", "--data", shops, "--model", "mlp", "--epochs", "1", *options, "--out", tmp_path / "run")
    cli.assert_refused(ended, *parts)
    assert not (tmp_path / "run").exists()
