"""Hugging Face data sets, read from local folders and without the network."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from torchlasso.data import load, load_part


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    return datasets


def test_images_in_parquet(tmp_path, grey, png, images, capsys) -> None:
    images(tmp_path / "train-00000-of-00001.parquet", [png(p) for p in grey], [0, 1] * 10)
    images(tmp_path / "test-00000-of-00001.parquet", [png(p) for p in grey[:6]], [1, 0] * 3)
    dataset = load(f"hf:{tmp_path}")
    np.testing.assert_array_equal(dataset.x[:, 0].numpy(), grey.astype(np.float32) / 255)
    assert dataset.test_y.tolist() == [1, 0] * 3
    assert len(load_part(f"hf:{tmp_path}").x) == 6
    assert capsys.readouterr() == ("", "")


def test_table_with_one_split(tmp_path) -> None:
    columns = {"a": np.arange(10.0), "id": list("abcdefghij"), "kind": ["u", "v"] * 5}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    dataset = load(f"hf:{tmp_path}", label="kind", ignore=["id"])
    assert dataset.features == ("a",)
    assert dataset.classes == ("u", "v")
    assert (len(dataset.x), len(dataset.test_x)) == (8, 2)


def test_folder_of_images(tmp_path, grey) -> None:
    for index in range(10):
        folder = tmp_path / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey[index]).save(folder / f"{index}.png")
    dataset = load(f"hf:{tmp_path}")
    assert dataset.input_shape == (1, 4, 5)
    assert dataset.outputs == 2


def test_no_training_split(tmp_path, refusal) -> None:
    pq.write_table(pa.table({"a": [1.0], "label": [0]}), tmp_path / "test.parquet")
    assert "no split 'train'; there are 'test'" in refusal(f"hf:{tmp_path}")


def test_errors(tmp_path, refusal, monkeypatch) -> None:
    pq.write_table(pa.table({"a": [1.0, 2.0], "label": [0, 1]}), tmp_path / "train.parquet")
    assert "no column 'kind'; choose one with label=" in refusal(f"hf:{tmp_path}", label="kind")
    assert "cannot be loaded" in refusal(f"hf:{tmp_path / 'absent'}")
    assert "no name; it must look like hf:mnist" in refusal("hf:")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "needs datasets: pip install 'torchlasso[data]'" in refusal("hf:mnist")
