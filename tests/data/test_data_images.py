"""Reading sound images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from torchlasso.data import load, load_part

LABELS = [0, 1] * 10


def test_parquet_of_grey_images(tmp_path, grey, png, images) -> None:
    path = images(tmp_path / "a.parquet", [png(p) for p in grey], LABELS)
    part = load_part(str(path))
    np.testing.assert_array_equal(part.x.numpy(), grey[:, None].astype(np.float32) / 255)
    assert part.y is not None
    assert part.y.dtype == np.int64
    assert part.y.tolist() == LABELS
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
    assert x.shape == (2, 3, 4, 3)
    assert torch.equal(x[0], x[1])


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
    assert part.y is not None
    assert part.y.tolist() == ["a", "b"]


def test_palette_with_transparency(tmp_path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "0.png", transparency=b"\x00\xff")
    assert (load_part(str(tmp_path)).x[0, :, 0, 0] * 255).round().tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, grey, idx, suffix) -> None:
    for prefix, rows in (("train", slice(0, 14)), ("t10k", slice(14, 20))):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", grey[rows])
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.array(LABELS[rows], np.uint8))
    dataset = load(str(tmp_path))
    np.testing.assert_array_equal(dataset.test_x[:, 0].numpy(), grey[14:].astype(np.float32) / 255)
    assert dataset.test_y.tolist() == LABELS[14:]
    assert len(dataset.x) == 14
    part = load_part(str(tmp_path / f"train-images-idx3-ubyte{suffix}"))
    assert part.y is not None
    assert part.y.tolist() == LABELS[:14]


def test_idx_that_was_unpacked_beside_its_gzip_is_read_once(tmp_path, grey, idx) -> None:
    for suffix in ("", ".gz"):
        idx(tmp_path / f"train-images-idx3-ubyte{suffix}", grey)
        idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", np.array(LABELS, np.uint8))
    assert len(load_part(str(tmp_path)).x) == 20


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_idx_of_other_numbers(tmp_path, idx, dtype) -> None:
    path = idx(tmp_path / "a.idx", np.array([[1, -2], [3, 4]], dtype))
    part = load_part(str(path))
    assert part.x.tolist() == [[1, -2], [3, 4]]
    assert part.y is None


def test_image_folder(tmp_path, grey) -> None:
    for split, start in (("", 0), ("train", 0), ("test", 10)):
        for index in range(start, start + 10):
            folder = tmp_path / ("split" if split else "plain") / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[index]).save(folder / f"{index}.png")
            (folder / "notes.txt").write_text("not an image")
    split, plain = load(str(tmp_path / "split")), load(str(tmp_path / "plain"))
    assert split.classes == plain.classes == ("a", "b")
    assert (len(split.x), len(split.test_x)) == (10, 10)
    assert (len(plain.x), len(plain.test_x)) == (8, 2)
    np.testing.assert_array_equal(split.x[:5, 0].numpy(), grey[:10:2].astype(np.float32) / 255)
    assert split.y.tolist() == [0] * 5 + [1] * 5
    part = load_part(str(tmp_path / "split" / "test" / "a"))
    assert part.x.shape == (5, 1, 4, 5)
    assert part.y is None
