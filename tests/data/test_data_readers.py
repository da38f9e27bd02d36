"""What each reader makes of sound data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from torchlasso.data import load, load_part
from torchlasso.data.readers.folder import role_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LABELS = [0, 1] * 10


def test_digits() -> None:
    dataset = load("digits")
    assert dataset.input_shape == (1, 8, 8)
    assert (dataset.name, dataset.outputs, dataset.features) == ("digits", 10, ())
    assert dataset.x.dtype == torch.float32 and dataset.y.dtype == torch.int64
    assert dataset.x.min() == 0 and dataset.x.max() == 1
    assert len(dataset.x) + len(dataset.test_x) == 1797
    assert torch.equal(load("digits").test_x, dataset.test_x)
    part = load_part("digits")
    assert torch.equal(part.x, dataset.test_x)
    assert part.y is not None and part.y.tolist() == dataset.test_y.tolist()


def test_mnist_as_a_folder() -> None:
    if not (SHARED / "mnist-train.parquet").is_file():
        pytest.skip("../shared/data is not there")
    dataset = load(str(SHARED))
    assert dataset.x.shape == (60000, 1, 28, 28) and dataset.test_x.shape == (10000, 1, 28, 28)
    assert dataset.classes == tuple("0123456789")
    assert dataset.y[:5].tolist() == [5, 0, 4, 1, 9] and dataset.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert dataset.x.mean().item() == pytest.approx(0.1307, abs=1e-4)  # as published


def test_gaps_in_the_mice_table() -> None:
    path = SHARED / "mice-protein.csv"
    if not path.is_file():
        pytest.skip("../shared/data is not there")
    with pytest.raises(ValueError, match="1396 missing or infinite values, first in row 0 .* 'DYRK1A_N'"):
        load(str(path), ignore=["MouseID", "Genotype", "Treatment", "Behavior"])


def test_parquet_of_grey_images(tmp_path, grey, png, images) -> None:
    path = images(tmp_path / "a.parquet", [png(p) for p in grey], LABELS)
    part = load_part(str(path))
    np.testing.assert_array_equal(part.x.numpy(), grey[:, None].astype(np.float32) / 255)
    assert part.y is not None and part.y.dtype == np.int64 and part.y.tolist() == LABELS
    dataset = load(str(path))
    assert (len(dataset.x), len(dataset.test_x), dataset.name) == (16, 4, "a.parquet")


def test_parquet_of_colour_images_with_text_labels(tmp_path, rng, png, images) -> None:
    pixels = rng.integers(0, 256, (10, 3, 4, 3), dtype=np.uint8)
    path = images(tmp_path / "a.parquet", [png(p) for p in pixels], ["cat", "dog"] * 5)
    part = load_part(str(path))
    np.testing.assert_array_equal(part.x.numpy(), pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    assert load(str(path)).classes == ("cat", "dog")


def test_grey_and_colour_together_have_three_channels(tmp_path, rng, png, images) -> None:
    pixels = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    path = images(tmp_path / "a.parquet", [png(pixels), png(np.stack([pixels] * 3, -1))], None)
    x = load_part(str(path)).x
    assert x.shape == (2, 3, 4, 3) and torch.equal(x[0], x[1])


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_modes_of_images(tmp_path, mode, channels) -> None:
    image = Image.new("RGB" if mode == "CMYK" else "L", (3, 2), "white")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shown = Image.fromarray(np.full((2, 3), 65535, np.uint16)) if mode == "I;16" else image.convert(mode)
        shown.save(tmp_path / name / ("0.tif" if mode == "CMYK" else "0.png"))
    part = load_part(str(tmp_path))
    assert part.x.shape == (2, channels, 2, 3)
    assert part.x.min() == 1
    assert part.y is not None and part.y.tolist() == ["a", "b"]


def test_palette_with_transparency(tmp_path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "0.png", transparency=b"\x00\xff")
    assert (load_part(str(tmp_path)).x[0, :, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_parquet_table(tmp_path) -> None:
    table = {
        "b": [True, False] * 5,
        "a": np.arange(10, dtype=np.int16),
        "y": pa.array(["u", "v"] * 5).dictionary_encode(),
        "id": [str(i) for i in range(10)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    dataset = load(str(tmp_path / "a.parquet"), ignore=["id"])
    assert dataset.features == ("b", "a") and dataset.classes == ("u", "v")
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
    assert dataset.x[:, 0].tolist() == list(range(20)) and dataset.test_x[:, 0].tolist() == list(range(20, 30))
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
    assert part.y is not None and part.y.tolist() == ['x "y"', "z", "z"]


@pytest.mark.parametrize(("values", "kind"), [("1 2 3", "i"), ("1 2.0 3", "f"), ("1 2e0 x", "U"), ("a b c", "U")])
def test_csv_labels_are_of_the_kind_in_which_all_are_written(tmp_path, values, kind) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,target\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values.split())))
    part = load_part(str(path))
    assert part.y is not None and part.y.dtype.kind == kind


def test_csv_regression(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,y\n" + "".join(f"{i},{i / 2}\n" for i in range(10)))
    dataset = load(str(path))
    assert dataset.classes == () and dataset.outputs == 1
    assert dataset.y.shape == (8, 1) and dataset.y.dtype == torch.float32
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
    assert part.y is None and part.features == ("a", "b")
    path.write_text("a,label\n1,\n2,\n")
    assert load_part(str(path)).y is None


@pytest.mark.parametrize("suffix", ["", "_train"])
def test_npz(tmp_path, grey, suffix) -> None:
    arrays = {f"x{suffix}": grey, f"y{suffix}": np.array(LABELS), "x_test": grey[:6], "y_test": LABELS[:6]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    dataset = load(str(tmp_path / "a.npz"))
    assert dataset.x.shape == (20, 1, 4, 5) and dataset.test_x.shape == (6, 1, 4, 5)
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


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, grey, idx, suffix) -> None:
    for prefix, rows in (("train", slice(0, 14)), ("t10k", slice(14, 20))):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", grey[rows])
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.array(LABELS[rows], np.uint8))
    dataset = load(str(tmp_path))
    np.testing.assert_array_equal(dataset.test_x[:, 0].numpy(), grey[14:].astype(np.float32) / 255)
    assert dataset.test_y.tolist() == LABELS[14:] and len(dataset.x) == 14
    part = load_part(str(tmp_path / f"train-images-idx3-ubyte{suffix}"))
    assert part.y is not None and part.y.tolist() == LABELS[:14]


def test_idx_that_was_unpacked_beside_its_gzip_is_read_once(tmp_path, grey, idx) -> None:
    for suffix in ("", ".gz"):
        idx(tmp_path / f"train-images-idx3-ubyte{suffix}", grey)
        idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", np.array(LABELS, np.uint8))
    assert len(load_part(str(tmp_path)).x) == 20


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_idx_of_other_numbers(tmp_path, idx, dtype) -> None:
    path = idx(tmp_path / "a.idx", np.array([[1, -2], [3, 4]], dtype))
    part = load_part(str(path))
    assert part.x.tolist() == [[1, -2], [3, 4]] and part.y is None


def test_image_folder(tmp_path, grey) -> None:
    for split, start in (("", 0), ("train", 0), ("test", 10)):
        for index in range(start, start + 10):
            folder = tmp_path / ("split" if split else "plain") / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[index]).save(folder / f"{index}.png")
            (folder / "notes.txt").write_text("not an image")
    split, plain = load(str(tmp_path / "split")), load(str(tmp_path / "plain"))
    assert split.classes == plain.classes == ("a", "b")
    assert (len(split.x), len(split.test_x)) == (10, 10) and (len(plain.x), len(plain.test_x)) == (8, 2)
    np.testing.assert_array_equal(split.x[:5, 0].numpy(), grey[:10:2].astype(np.float32) / 255)
    assert split.y.tolist() == [0] * 5 + [1] * 5
    part = load_part(str(tmp_path / "split" / "test" / "a"))
    assert part.x.shape == (5, 1, 4, 5) and part.y is None


MODULE = """
import numpy as np, torch
def split():
    return (np.zeros((4, 3)), [0, 1, 0, 1]), (torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([True, False]))
def whole():
    return torch.arange(20.0).view(10, 2), torch.arange(20.0).view(10, 2) / 2
def wrong():
    return [1, 2, 3]
def ragged():
    return [[1], [2, 3]], [0, 1]
def scalar():
    return 3, 4
def short():
    return np.zeros((3, 2)), [0, 1]
def needy(n):
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    name = f"data_functions_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_function(module) -> None:
    dataset = load(f"{module}:split")
    assert dataset.classes == ("0", "1") and dataset.test_y.tolist() == [1, 0]
    assert dataset.test_x.tolist() == [[1, 1, 1]] * 2
    regression = load(f"{module}:whole")
    assert regression.outputs == 2 and regression.y.shape == (8, 2)
    assert torch.equal(regression.x, regression.y * 2)
    assert len(load_part(f"{module}:whole").x) == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", r"must return \(x, y\) or .*, not list"),
        ("ragged", "x has rows of different lengths"),
        ("scalar", "x must be an array or a tensor, not int"),
        ("short", "x has 3 rows and y has 2"),
        ("needy", "must need no arguments"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_function_errors(module, function, message) -> None:
    with pytest.raises(ValueError, match=f"{module}:{function}.*{message}"):
        load(f"{module}:{function}")


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
