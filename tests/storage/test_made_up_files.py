"""Files that were made up: a clear error for false entries, and nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.weight_files import LIMIT, MEMORY, check, joined, model, sealed
from torchlasso.storage import container, read

pytestmark = pytest.mark.slow


def made(folder: Path, sparse: Any, tied: Any = None, data: bytes = b"", dtype: str = "U8", **entries: Any) -> Path:
    """A file with a right checksum, with an entry "w" of these bytes, and this in the metadata."""
    layout = {container.KEY: 1, "crc32": "0" * 8, "sparse": sparse, "tied": tied or {}}
    header = {
        "__metadata__": {container.KEY: json.dumps(layout, separators=(",", ":"))},
        "w": {"dtype": dtype, "shape": [len(data)], "data_offsets": [0, len(data)]},
        **entries,
    }
    path = folder / "made.safetensors"
    path.write_bytes(sealed(joined(json.dumps(header, separators=(",", ":")).encode(), data)))
    return path


ONE = struct.pack("<f", 1.0)
W: dict[str, Any] = {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]}
GOOD = ["F32", [2, 4], 1, 0, "F32"]
MADE: dict[str, tuple[dict[str, Any], str]] = {
    "huge shape": ({"sparse": {"w": ["F32", [2**31, 2**20], 1, 0, "F32"]}}, "the limit of 65,536"),
    "overflowing shape": ({"sparse": {"w": ["F32", [2**40, 2**40], 1, 0, "F32"]}}, "'w' cannot be float32 of shape"),
    "empty, but overflowing": ({"sparse": {"w": ["F32", [0, 2**63], 0, 0, "F32"]}}, "'w' cannot be float32 of shape"),
    "negative shape": ({"sparse": {"w": ["F32", [-2, -4], 1, 0, "F32"]}}, "its record is"),
    "fractional shape": ({"sparse": {"w": ["F32", [2.5], 1, 0, "F32"]}}, "its record is"),
    "more values than bytes": ({"sparse": {"w": ["F32", [2, 4], 2, 0, "F32"]}}, "'w': it has 5 bytes and 2 values"),
    "huge count": ({"sparse": {"w": ["F32", [2, 4], 2**62, 0, "F32"]}}, "'w': it has 5 bytes and"),
    "negative count": ({"sparse": {"w": ["F32", [2, 4], -1, 0, "F32"]}}, "'w': it has 5 bytes and -1 values"),
    "more than fit": ({"sparse": {"w": ["F32", [], 1, 0, "F32"]}}, "'w': "),
    "place outside": ({"sparse": {"w": ["F32", [2], 1, 0, "F32"]}}, "'w': "),
    "huge k": ({"sparse": {"w": ["F32", [2, 4], 1, 10**9, "F32"]}}, "low bits"),
    "unknown dtype": ({"sparse": {"w": ["F31", [2, 4], 1, 0, "F32"]}}, "its record is"),
    "another dtype of values": ({"sparse": {"w": ["F32", [2, 4], 1, 0, "C64"]}}, "its record is"),
    "wider values": ({"sparse": {"w": ["BF16", [2, 4], 1, 0, "F32"]}}, "its record is"),
    "values of bool": ({"sparse": {"w": ["BOOL", [5], 5, 0, "BOOL"]}}, "it is bool and has other values"),
    "no record": ({"sparse": {"w": 7}}, "its record is 7"),
    "long record": ({"sparse": {"w": ["F32"] * 10**5}}, "its record is"),
    "no entry": ({"sparse": {"v": GOOD}}, "'v' is not stored as bytes"),
    "entry of another dtype": ({"sparse": {"w": GOOD}, "dtype": "I8"}, "'w' is not stored as bytes"),
    "two dimensions": ({"sparse": {"w": GOOD}, "w": W | {"shape": [5, 1]}}, "'w' is not stored as bytes"),
    "sparse is a list": ({"sparse": ["w"]}, "do not describe a model"),
    "tied to nothing": ({"sparse": {"w": GOOD}, "tied": {"v": "u"}}, "'v' cannot be the same as 'u'"),
    "tied to itself": ({"sparse": {"w": GOOD}, "tied": {"v": "v"}}, "'v' cannot be the same as 'v'"),
    "tied twice": ({"sparse": {"w": GOOD}, "tied": {"v": "w", "u": "v"}}, "'u' cannot be the same as 'v'"),
    "tied, but there": ({"sparse": {"w": GOOD}, "tied": {"w": "w"}}, "'w' cannot be the same as 'w'"),
    "tied to a list": ({"sparse": {"w": GOOD}, "tied": {"v": ["w"]}}, "'v' cannot be the same as ['w']"),
    "overlapping": ({"sparse": {"w": GOOD}, "v": W}, "is damaged or not a safetensors file"),
    "with a hole": ({"sparse": {"w": GOOD}, "w": W | {"data_offsets": [1, 5]}}, "is damaged or not a safetensors file"),
    "beyond the end": (
        {"sparse": {"w": GOOD}, "w": W | {"data_offsets": [0, 2**40]}},
        "is damaged or not a safetensors",
    ),
    "dtype not supported": ({"sparse": {}, "dtype": "F8_E8M0"}, "'w' is F8_E8M0, which is not supported"),
    "dense, empty, but overflowing": (
        {"sparse": {"w": GOOD}, "v": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [5, 5]}},
        "'v' cannot be float32 of shape",
    ),
}


@pytest.mark.parametrize(("content", "message"), MADE.values(), ids=MADE)
def test_a_file_with_false_entries_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = made(tmp_path, **{"data": ONE + b"\x10", **content})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"made\.safetensors") as caught:
            read(path, limit=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < MEMORY + 20 * path.stat().st_size
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_same_file_without_a_lie_is_read(tmp_path: Path) -> None:
    back = read(made(tmp_path, {"w": GOOD}, {"v": "w"}, ONE + b"\x10"))
    assert back["w"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert back["v"] is back["w"]


OTHER: dict[str, bytes] = {
    "empty": b"",
    "short": b"\0" * 7,
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header beyond the end": struct.pack("<Q", 100) + b"{}",
    "no JSON": joined(b"hello!!!", b""),
    "nested": joined(b'{"__metadata__":' + b"[" * 10**5, b""),
    "nested in the metadata": joined(
        json.dumps({"__metadata__": {container.KEY: "[" * 10**5}}).encode(),
        b"",
    ),
    "a pickle": pickle.dumps({"w": [1.0]}),
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert check(tmp_path / "m", content) == "refused"


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "m")
    assert check(tmp_path / "m", (tmp_path / "m").read_bytes()) == "refused"
