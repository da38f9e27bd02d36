"""Data that readers refuse: each error is one line that names the file and the remedy."""

from __future__ import annotations

import gzip
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from torchlasso.data import load, load_part

LABELS = [0, 1] * 10


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@pytest.mark.parametrize("spec", ["absent.csv", "no/such/folder", "absent.parquet"])
def test_missing_path(spec) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{spec}: no such file or folder$"):
        load(spec)


@pytest.mark.parametrize("spec", ["digist", "mnist", ""])
def test_unknown_name(spec) -> None:
    with pytest.raises(ValueError, match=f"unknown dataset '{spec}'.*FILE.csv.*digits.*hf:NAME"):
        load(spec)


def test_unreadable_kinds(tmp_path, refusal) -> None:
    (tmp_path / "a.doc").write_text("text")
    assert "there are readers for" in refusal(tmp_path / "a.doc")
    assert "it holds 'a.doc'" in refusal(tmp_path)


def test_ignore_must_not_be_text() -> None:
    with pytest.raises(ValueError, match="ignore must be a sequence of column names"):
        load("digits", ignore="id")


def test_label_and_ignore_need_columns(tmp_path, refusal) -> None:
    assert "label=, ignore=, group=, time=, categories=, text= and weight= do not apply" in refusal("digits", label="y")
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=[0, 1, 0, 1])
    assert "do not apply" in refusal(tmp_path / "a.npz", ignore=["id"])


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        ("sklearn.datasets", "digits", r"needs sklearn: pip install 'torchlasso\[sklearn\]'"),
        ("pyarrow", "a.csv", r"needs pyarrow: pip install 'torchlasso\[data\]'"),
        ("pyarrow", "a.parquet", r"needs pyarrow: pip install 'torchlasso\[data\]'"),
        ("PIL.Image", "a.parquet", r"needs PIL: pip install 'torchlasso\[data\]'"),
    ],
)
def test_missing_extra(tmp_path, monkeypatch, grey, png, images, module, spec, message) -> None:
    (tmp_path / "a.csv").write_text("a,label\n1,0\n2,1\n")
    images(tmp_path / "a.parquet", [png(p) for p in grey], LABELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=message):
        load(spec)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_cut_short(tmp_path, refusal, grey, png, images, idx, keep) -> None:
    labels = np.array(LABELS, np.uint8)
    parquet = images(tmp_path / "a.parquet", [png(p) for p in grey], LABELS)
    np.savez(tmp_path / "a.npz", x=grey, y=labels)
    idx(tmp_path / "labels-idx1-ubyte", labels)
    for path in (
        parquet,
        tmp_path / "a.npz",
        idx(tmp_path / "images-idx3-ubyte", grey),
        idx(tmp_path / "images-idx3-ubyte.gz", grey),
    ):
        message = refusal(cut(path, keep))
        kinds = "cut short", "whole IDX", "not an NPZ", "not a Parquet"
        assert any(kind in message for kind in kinds), message


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv", "-idx3-ubyte", "-idx3-ubyte.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n\0\0\0\0", b"PK\x03\x04\0", b"PAR1\0\0\0\0PAR1", b"\xff\xfea\0"]
)
def test_content_that_does_not_match_the_suffix(tmp_path, refusal, suffix, content) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refusal(path)
    refusal(path, load_part)


def test_csv_under_the_suffix_of_parquet(tmp_path, refusal) -> None:
    (tmp_path / "a.parquet").write_text("a,label\n1,0\n" * 20)
    assert "not a Parquet file" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(21, 4, 5), (19, 4, 5), (2**32 - 1,) * 3, (2**32 - 1,) * 4])
def test_idx_with_a_false_header(tmp_path, refusal, grey, idx, suffix, shape) -> None:
    path = idx(tmp_path / f"a-idx3-ubyte{suffix}", grey, shape)
    tracemalloc.start()
    try:
        assert "its header announces" in refusal(path, load_part)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # bytes
    finally:
        tracemalloc.stop()


def test_idx_gzip_that_announces_a_little_too_much(tmp_path, refusal) -> None:
    path = tmp_path / "a-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4B2I", 0, 0, 8, 2, 10, 10) + bytes(99)))
    assert "announces 100 bytes, but it holds 99" in refusal(path, load_part)


def test_idx_without_labels(tmp_path, refusal, grey, idx) -> None:
    path = idx(tmp_path / "train-images-idx3-ubyte", grey)
    assert "train-labels-idx1-ubyte" in refusal(path)
    assert load_part(str(path)).y is None


def test_idx_labels_of_another_length(tmp_path, refusal, grey, idx) -> None:
    path = idx(tmp_path / "train-images-idx3-ubyte", grey)
    idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(19, np.uint8))
    assert "x has 20 rows and y has 19" in refusal(path)


def test_damaged_image_in_parquet(tmp_path, refusal, grey, png, images) -> None:
    encoded = [png(p) for p in grey]
    for damaged in (encoded[3][: len(encoded[3]) // 2], b"", b"text"):
        path = images(tmp_path / "a.parquet", [*encoded[:3], damaged], [0, 1, 0, 1])
        assert "row 3 (from 0): not a readable image" in refusal(path)
    path = images(tmp_path / "a.parquet", [*encoded[:3], None], [0, 1, 0, 1])
    assert "no image in column 'image', row 3 (from 0)" in refusal(path)


def test_images_of_two_sizes(tmp_path, refusal, grey, png, images) -> None:
    path = images(tmp_path / "a.parquet", [png(grey[0]), png(grey[0][:3])], [0, 1])
    assert "row 1 (from 0): the image has 5x3 pixels, the first one has 5x4" in refusal(path)


def test_train_and_test_images_of_two_sizes(tmp_path, grey, png, images) -> None:
    images(tmp_path / "train.parquet", [png(p) for p in grey[:4]], [0, 1, 0, 1])
    path = images(tmp_path / "test.parquet", [png(p[:3]) for p in grey[:4]], [0, 1, 0, 1])
    with pytest.raises(ValueError, match=rf"^{path}: its rows have the shape \(1, 3, 5\)"):
        load(str(tmp_path))


def test_more_than_one_column_of_images(tmp_path, refusal, grey, png) -> None:
    encoded = [png(p) for p in grey]
    pq.write_table(pa.table({"a": encoded, "b": encoded, "label": LABELS}), tmp_path / "a.parquet")
    assert "several columns of images ('a', 'b')" in refusal(tmp_path / "a.parquet")
    assert len(load_part(str(tmp_path / "a.parquet"), ignore=["b"]).x) == 20


def test_image_folders(tmp_path, refusal, grey) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(grey[0]).save(tmp_path / "a" / "0.png")
    assert "no images in the class folder 'b'" in refusal(tmp_path)
    Image.fromarray(grey[0][:2]).save(tmp_path / "b" / "0.png")
    with pytest.raises(ValueError, match=r"b/0.png: the image has 5x2 pixels"):
        load(str(tmp_path))
    (tmp_path / "b" / "0.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"b/0.png: not a readable image"):
        load(str(tmp_path))
    assert "no class folders" in refusal(tmp_path / "a")


def test_test_folder_with_a_class_of_its_own(tmp_path, grey) -> None:
    for folder in ("train/a", "train/b", "test/a", "test/c"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(grey[0]).save(tmp_path / folder / "0.png")
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'test'}: the label 'c' in row 1"):
        load(str(tmp_path))


def test_folder_without_a_training_file(tmp_path, refusal) -> None:
    (tmp_path / "test.csv").write_text("a,label\n1,0\n")
    assert "no training part; one file must have 'train' in its name" in refusal(tmp_path)
    assert len(load_part(str(tmp_path)).x) == 1


def test_folder_with_two_formats_of_one_split(tmp_path, refusal) -> None:
    (tmp_path / "train.csv").write_text("a,label\n1,0\n")
    np.savez(tmp_path / "train.npz", x=np.ones((2, 2)), y=[0, 1])
    assert "one split in several formats ('train.csv', 'train.npz')" in refusal(tmp_path)
