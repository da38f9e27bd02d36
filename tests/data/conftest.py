"""Small files in the formats that the readers take."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from torchlasso.data import load

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encode(pixels: np.ndarray, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def save_images(path: Path, encoded: Sequence[bytes | None], labels: Sequence[object] | None) -> Path:
    images = [{"bytes": data, "path": f"{index}.png"} for index, data in enumerate(encoded)]
    columns = {"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    if labels is not None:
        columns["label"] = pa.array(labels)
    pq.write_table(pa.table(columns), path)
    return path


def save_idx(path: Path, array: np.ndarray, shape: tuple[int, ...] | None = None) -> Path:
    shape = array.shape if shape is None else shape
    code = IDX_CODES[array.dtype.str[1:]]
    data = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)
    data += array.astype(array.dtype.newbyteorder(">")).tobytes()
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as stream:
        stream.write(data)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (20, 4, 5), dtype=np.uint8)


@pytest.fixture
def png() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def images() -> Callable[..., Path]:
    return save_images


@pytest.fixture
def idx() -> Callable[..., Path]:
    return save_idx


@pytest.fixture
def refusal() -> Callable[..., str]:
    """The message of the error that reading raises: one line that begins with the name of the data."""

    def read(path: object, reading: Callable[..., object] = load, **options: object) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            reading(str(path), **options)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        return message

    return read
