"""Files of data and shapes that would need more memory than there is are refused before it is taken."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import programs
from torchlasso import data, models
from torchlasso._core import memory
from torchlasso.data.readers import parquet as parquet_reader
from torchlasso.runs.experiment import Experiment, Options
from torchlasso.runs.rows import InputSpec


@pytest.mark.parametrize("shape", [(3, 10**6, 10**6), (1, 10**9, 10**9), (1, 2**40, 2**40)])
def test_inputs_that_are_too_large(shape: tuple[int, ...]) -> None:
    with pytest.raises((MemoryError, ValueError)):
        models.build("mlp", shape, 10)
    with pytest.raises((MemoryError, ValueError)):  # the weights of a convolution do not depend on it
        _ = Experiment(Options("digits", model="resnet-20"), inputs_of(shape)).example


def inputs_of(shape: tuple[int, ...]) -> InputSpec:
    scale = data.Standardizer((0.0,) * min(shape[0], 3), (1.0,) * min(shape[0], 3))
    return InputSpec(shape, 10, (), (), scale)


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a megabyte free, every reader refuses data that take more, even if the file is small."""
    zeros = np.zeros((2000, 1000), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", x=zeros)
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(
        __import__("gzip").compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 2000, 40, 25) + zeros.tobytes())
    )
    Image.fromarray(np.zeros((1500, 1500), np.uint8)).save(tmp_path / "large.png")
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": np.zeros(10**6)}), tmp_path / "equal.parquet")
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    monkeypatch.setattr(parquet_reader, "available", lambda: 1 << 20)
    for name in ("bomb.npz", "images-idx3-ubyte.gz", "large.png", "equal.parquet"):
        assert (tmp_path / name).stat().st_size < 200_000
        with pytest.raises(MemoryError, match=name):
            data.load_part(str(tmp_path / name))


def test_free_memory_is_below_every_limit() -> None:
    program = """
import resource
from torchlasso._core import memory
before = memory.available()
resource.setrlimit(resource.RLIMIT_AS, (1 << 33,) * 2)
assert 0 < memory.available() <= min(before + (1 << 28), 1 << 33)
"""
    assert programs.run(code=program).code == 0
