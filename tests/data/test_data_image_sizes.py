"""Images of any size, turned by their EXIF data, or unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchlasso.data import ImageOptions, Standardizer, load, load_part
from torchlasso.data.images import decode_images
from torchlasso.data.scaled import ScaledRows, scale_of_bytes

SIZES = [(8, 8), (4, 8), (16, 8), (30, 20)]  # width and height


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two classes of images of several sizes, and of two modes."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(8):
            width, height = SIZES[i % 4]
            shape = (height, width, 3) if i % 2 else (height, width)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_images_of_several_sizes_need_a_size(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"1.png: the image has 4x8 pixels, the first one has 8x8; .* size=224"):
        load(str(folder))
    dataset = load(str(folder), images=ImageOptions("6x5"))
    assert dataset.input_shape == (3, 6, 5)
    assert dataset.x.dtype == torch.float32


def test_how_they_are_resized() -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :4], wide[:, 4:] = (255, 0, 0), (0, 0, 255)
    image = Image.fromarray(wide)

    def read(resize: str) -> np.ndarray:
        image.save(path := Path("wide.png"))
        return decode_images([path], 1, str, ImageOptions("8", resize)).x[0].numpy()

    padded, cropped, stretched = (read(name) for name in ("pad", "crop", "stretch"))
    assert padded.shape == cropped.shape == stretched.shape == (3, 8, 8)
    assert not padded[:, :2].any()
    assert not padded[:, 6:].any()
    assert (padded[0, 3, 0], padded[2, 3, 7]) == (255, 255)
    assert (cropped[0, 0, 0], cropped[2, 7, 7]) == (255, 255)  # from the middle: both colours are there
    assert (stretched[0, 0, 0], stretched[2, 7, 7]) == (255, 255)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((2, 6), np.uint8)
    pixels[:, 3:] = 255
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    x = decode_images([tmp_path / "turned.png"], 1, str).x
    assert x.shape == (1, 1, 6, 2)
    assert x[0, 0, :3].max() == 0
    assert x[0, 0, 3:].min() == 255


def test_unreadable_images_are_left_out_up_to_a_share(folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes((folder / "a" / "0.png").read_bytes()[:60])
    (folder / "b" / "7.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a/0.png: not a readable image"):
        load_part(str(folder), images=ImageOptions("8"))
    with pytest.raises(ValueError, match=r"b/7.png|a/0.png.*more than skip_corrupt=0.1"):
        load_part(str(folder), images=ImageOptions("8", skip_corrupt=0.1))
    part = load_part(str(folder), images=ImageOptions("8", skip_corrupt=0.2))
    assert len(part.x) == 14
    assert part.y is not None
    assert part.y.tolist() == ["a"] * 7 + ["b"] * 7
    assert [Path(name).name for name in part.names[:2]] == ["1.png", "2.png"]
    [resized, skipped] = part.notes
    assert "8×4 to 20×30" in resized or "brought to 8×8 (pad)" in resized
    assert "2 images are unreadable and left out" in skipped


def test_nothing_but_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a readable image"):
        load_part(str(tmp_path), images=ImageOptions("8", skip_corrupt=0.9))


@pytest.mark.parametrize("size", ["", "large", "0", "8x", "8x0", "99999", "-3", "8.5"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(ValueError, match="size must be"):
        ImageOptions(size)


def test_other_options_that_are_of_no_use() -> None:
    with pytest.raises(ValueError, match="unknown resize 'crp'; did you mean 'crop'"):
        ImageOptions("8", "crp")
    with pytest.raises(ValueError, match="skip_corrupt must be a share"):
        ImageOptions("8", skip_corrupt=1.0)


def test_bytes_are_scaled_as_floats_are(rng: np.random.Generator) -> None:
    data = torch.from_numpy(rng.integers(0, 256, (5000, 3, 4, 4), dtype=np.uint8))
    data[:, 1] = 7  # a channel that is constant
    scale, known = scale_of_bytes(data), Standardizer.fit(data.float() / 255)
    assert scale.is_close(known)
    assert scale.std[1] == 1.0
    rows, pixels = torch.tensor([4999, 0, 3]), ScaledRows(data, scale)
    assert torch.equal(pixels[rows], scale(data[rows].float() / 255))
    assert (len(pixels), pixels.shape, pixels.device) == (5000, data.shape, data.device)
