"""Reading sound tables and arrays, and named data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchlasso.data import load, load_part
from torchlasso.data.readers.folder import role_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LABELS = [0, 1] * 10


def test_digits() -> None:
    dataset = load("digits")
    assert dataset.input_shape == (1, 8, 8)
    assert (dataset.name, dataset.outputs, dataset.features) == ("digits", 10, ())
    assert dataset.x.dtype == torch.float32
    assert dataset.y.dtype == torch.int64
    assert dataset.x.min() == 0
    assert dataset.x.max() == 1
    assert len(dataset.x) + len(dataset.test_x) == 1797
    assert torch.equal(load("digits").test_x, dataset.test_x)
    part = load_part("digits")
    assert torch.equal(part.x, dataset.test_x)
    assert part.y is not None
    assert part.y.tolist() == dataset.test_y.tolist()


@pytest.mark.slow
def test_mnist_as_a_folder() -> None:
    if not (SHARED / "mnist-train.parquet").is_file():
        pytest.skip("../shared/data is not there")
    dataset = load(str(SHARED))
    assert dataset.x.shape == (60000, 1, 28, 28)
    assert dataset.test_x.shape == (10000, 1, 28, 28)
    assert dataset.classes == tuple("0123456789")
    assert dataset.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert dataset.x.mean().item() == pytest.approx(0.1307, abs=1e-4)  # as published


def test_gaps_in_the_mice_table() -> None:
    path = SHARED / "mice-protein.csv"
    if not path.is_file():
        pytest.skip("../shared/data is not there")
    dataset = load(str(path), ignore=["Genotype", "Treatment", "Behavior"], group="MouseID:^[^_]+")
    assert len(dataset.classes) == 8
    assert dataset.x.isfinite().all()
    assert "BCL2_N is missing" in dataset.features
    assert len(dataset.x) + len(dataset.test_x) == 1080
    assert len(dataset.x) % 15 == 0  # of each animal 15 measurements


def test_parquet_table(tmp_path) -> None:
    table = {
        "b": [True, False] * 5,
        "a": np.arange(10, dtype=np.int16),
        "y": pa.array(["u", "v"] * 5).dictionary_encode(),
        "id": [str(i) for i in range(10)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    dataset = load(str(tmp_path / "a.parquet"), ignore=["id"])
    assert dataset.features == ("b", "a")
    assert dataset.classes == ("u", "v")
    assert dataset.input_shape == (2,)
    part = load_part(str(tmp_path / "a.parquet"), ignore=["id"])
    assert part.x[:3].tolist() == [[1, 0], [0, 1], [1, 2]]


def test_shards_are_joined_in_order_and_columns_by_name(tmp_path) -> None:
    for shard, (split, start) in enumerate([("train", 0), ("train", 10), ("test", 20)]):
        values = np.arange(start, start + 10.0)
        columns = {"a": values, "b": -values, "label": values.astype(int) % 2}
        names = ["b", "a", "label"] if start else ["a", "b", "label"]
        table = pa.table({name: columns[name] for name in names})
        pq.write_table(table, tmp_path / f"{split}-0000{shard}-of-00002.parquet")
    dataset = load(str(tmp_path))
    assert dataset.x[:, 0].tolist() == list(range(20))
    assert dataset.test_x[:, 0].tolist() == list(range(20, 30))
    assert torch.equal(dataset.x[:, 1], -dataset.x[:, 0])
    assert dataset.features == ("a", "b")
    assert dataset.name == tmp_path.name


def test_csv_classification(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        '\ufeff"a, b",c,"label",note\n1, 2.5 ,"x ""y""","two\nlines"\n+3,-4e1,z,n\n' * 1 + "5,6,z,\n", "utf-8"
    )
    part = load_part(str(path), ignore=["note"])
    assert part.features == ("a, b", "c")
    assert part.x.tolist() == [[1, 2.5], [3, -40], [5, 6]]
    assert part.y is not None
    assert part.y.tolist() == ['x "y"', "z", "z"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [("1 2 3", "i"), ("1 2.0 3", "f"), ("1 2e0 x", "U"), ("a b c", "U")],
)
def test_csv_labels_are_of_the_kind_in_which_all_are_written(tmp_path, values, kind) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,target\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values.split())))
    part = load_part(str(path))
    assert part.y is not None
    assert part.y.dtype.kind == kind


def test_csv_regression(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,y\n" + "".join(f"{i},{i / 2}\n" for i in range(10)))
    dataset = load(str(path))
    assert dataset.classes == ()
    assert dataset.outputs == 1
    assert dataset.y.shape == (8, 1)
    assert dataset.y.dtype == torch.float32
    assert torch.equal(dataset.x, dataset.y * 2)


def test_regression_targets_that_happen_to_be_whole_in_the_test_file(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("a,y\n1,0.5\n2,1.5\n")
    (tmp_path / "test.csv").write_text("a,y\n1,1\n2,2\n")
    assert load(str(tmp_path)).test_y.tolist() == [[1], [2]]


def test_label_names_in_order_and_by_choice(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("target,class,a\n" + "".join(f"{i % 5},{i % 2},{i % 4}\n" for i in range(20)))
    assert load(str(path)).features == ("target", "a")
    assert load(str(path), label="a").features == ("target", "class")
    assert load(str(path), ignore=["class"]).features == ("a",)


def test_prediction_needs_no_label_and_none_of_the_ignored_columns(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    part = load_part(str(path), label="class", ignore=["id"])
    assert part.y is None
    assert part.features == ("a", "b")
    path.write_text("a,label\n1,\n2,\n")
    assert load_part(str(path)).y is None


@pytest.mark.parametrize("suffix", ["", "_train"])
def test_npz(tmp_path, grey, suffix) -> None:
    arrays = {f"x{suffix}": grey, f"y{suffix}": np.array(LABELS), "x_test": grey[:6], "y_test": LABELS[:6]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    dataset = load(str(tmp_path / "a.npz"))
    assert dataset.x.shape == (20, 1, 4, 5)
    assert dataset.test_x.shape == (6, 1, 4, 5)
    np.testing.assert_array_equal(dataset.x[:, 0].numpy(), grey.astype(np.float32) / 255)
    assert len(load_part(str(tmp_path / "a.npz")).x) == 6


def test_npz_shapes(tmp_path, rng) -> None:
    def read(x: np.ndarray) -> torch.Tensor:
        np.savez(tmp_path / "a.npz", x=x)
        return load_part(str(tmp_path / "a.npz")).x

    pixels = rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    assert torch.equal(read(pixels), read(pixels.transpose(0, 3, 1, 2)))
    assert read(np.full((2, 3), 200, np.uint8))[0, 0] == 200  # a table is not scaled
    assert read(np.ones((2, 5, 4, 3), np.float64)).shape == (2, 5, 4, 3)
    assert read(np.arange(6, dtype=">i4").reshape(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train.csv", "train"),
        ("MNIST_Test.parquet", "test"),
        ("t10k-images-idx3-ubyte", "test"),
        ("mytrain.csv", "train"),
        ("latest-train.csv", "train"),
        ("validation-00000-of-00001.parquet", "validation"),
        ("train-test.csv", None),
        ("iris.csv", None),
    ],
)
def test_role_of_a_file(name, role) -> None:
    assert role_of(name) == role
