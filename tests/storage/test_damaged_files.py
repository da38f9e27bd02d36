"""Files that were cut, altered or made up: a clear error or the same tensors, little memory, and no partial load."""

from __future__ import annotations

import functools
import json
import pickle
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.storage import container, read

pytestmark = pytest.mark.slow

MEMORY = 1 << 21  # bytes that a load may take besides 20 times the file, which has 4 kB; a megabyte is read at a time
LIMIT = 1 << 16
SEAL = b'crc32\\":\\"'
State = Mapping[str, tuple[torch.dtype, tuple[int, ...], bytes]]
Alteration = Callable[[bytes], bytes]


def model(fill: float | None = None) -> nn.Module:
    """A sparse model of several dtypes, with a tied weight; or one of the same shapes filled with a number."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(60, 50), nn.BatchNorm1d(50), nn.Linear(50, 20, bias=False), nn.Linear(50, 20))
    made[2].weight = made[3].weight
    made.register_buffer("narrow", torch.randn(30, 20).bfloat16())
    made.register_buffer("mask", torch.ones(40, 20, dtype=torch.bool))
    made.register_buffer("empty", torch.ones(3, 0))
    made.register_buffer("zeros", torch.zeros(400))
    with torch.no_grad():
        for w in made.state_dict().values():
            if w.dim() > 1:
                w.masked_fill_(torch.rand(w.shape) < 0.9, 0)
            if fill is not None:
                w.fill_(fill)
    return made


def state(tensors: Mapping[str, Tensor]) -> State:
    return {
        name: (
            w.dtype,
            tuple(w.shape),
            bytes(torch.empty(w.shape, dtype=w.dtype).copy_(w).reshape(-1).view(torch.uint8).numpy()),
        )
        for name, w in sorted(tensors.items())
    }


@functools.cache
def expected() -> State:
    return state(model().state_dict())


@functools.cache
def written(folder: Path) -> bytes:
    tl.save(model(), folder / "whole.safetensors", metadata={"format": "pt"})
    return (folder / "whole.safetensors").read_bytes()


def sealed(content: bytes) -> bytes:
    """Write the file with a valid checksum, as an attacker would."""
    start = content.find(SEAL) + len(SEAL)
    total = zlib.crc32(content[:start] + b"00000000" + content[start + 8 :])
    return content[:start] + f"{total:08x}".encode() + content[start + 8 :]


def parts(content: bytes) -> tuple[bytes, bytes]:
    start = 8 + int.from_bytes(content[:8], "little")
    return content[8:start], content[start:]


def joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def flip(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << new[0] % 8]) + content[place + 1 :]


def cut(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place]


def drop(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + content[place + len(new) :]


def insert(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place:]


def overwrite(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def repeat(content: bytes, place: int, new: bytes) -> bytes:
    return content[: place + len(new)] + content[place:]


def swap(content: bytes, place: int, new: bytes) -> bytes:
    """Another number or word in the header, whose length is made right."""
    header, data = parts(content)
    found = list(re.finditer(rb"(?<![\w-])\d+(?!\w)" if new[:1].isdigit() or new[:1] == b"-" else rb"\w+", header))
    chosen = found[place % len(found)]
    return joined(header[: chosen.start()] + new + header[chosen.end() :], data)


NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "7",
    "8",
    "63",
    "255",
    *(str(2**k) for k in (31, 32, 40, 62, 63, 64)),
    "9" * 30,
    "9" * 5000,
)
WORDS = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "C64", "F4", "F8_E8M0", "X", "sparse", "tied", "")
RANDOM = st.tuples(
    st.sampled_from([flip, cut, drop, insert, overwrite, repeat]),
    st.binary(min_size=1, max_size=20) | st.sampled_from([bytes(16), b"\xff" * 16]),
)
HEADER = st.tuples(st.just(swap), st.sampled_from([text.encode() for text in NUMBERS + WORDS]))


@st.composite
def alterations(draw: st.DrawFn) -> Alteration:
    """A change at random, or of a number or a word in the header; the checksum is made right in half of the cases."""
    (change, new), place = draw(RANDOM | HEADER), draw(st.floats(0, 1, exclude_max=True))
    seal = draw(st.booleans())

    def altered(content: bytes) -> bytes:
        content = change(content, int(place * len(content)), new)
        return sealed(content) if seal else content

    return altered


def outcome(action: Callable[[], Mapping[str, Tensor]], path: Path) -> State | None:
    """Return the loaded tensors, or None for a refusal; fail on other errors, unclear messages or much memory."""
    tracemalloc.start()
    try:
        return state(action())
    except ValueError as error:
        message = str(error)
        assert message.startswith(str(path)), message
        assert "\n" not in message
        assert len(message) < len(str(path)) + 500
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY + 20 * path.stat().st_size


def check(path: Path, content: bytes) -> str:
    """Load a file with this content with :func:`torchlasso.load` and with ``read``."""
    path.write_bytes(content)
    into = model(fill=1)
    before = state(into.state_dict())

    def load() -> Mapping[str, Tensor]:
        tl.load(path, into=into)
        return into.state_dict()

    loaded, found = outcome(load, path), outcome(lambda: read(path, limit=LIMIT), path)
    assert loaded or state(into.state_dict()) == before
    known = all(tensors in (None, expected()) for tensors in (loaded, found))
    assert known or sealed(content) == content
    return "refused" if loaded is None else "the same" if loaded == expected() else "other values, checksum made right"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("whole"))


QUIET = settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUIET
@given(alterations())
def test_an_altered_file_is_refused_or_has_the_same_tensors(tmp_path: Path, whole: bytes, altered: Alteration) -> None:
    check(tmp_path / "altered.safetensors", altered(whole))


def test_the_unaltered_file_has_the_tensors(tmp_path: Path, whole: bytes) -> None:
    assert check(tmp_path / "m.safetensors", whole) == "the same"
    assert check(tmp_path / "m.safetensors", sealed(whole)) == "the same"


def test_each_flipped_byte_of_the_header_is_noticed(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "m.safetensors"
    for place in range(0, 8 + len(parts(whole)[0]), 3):
        path.write_bytes(flip(whole, place, bytes([place % 8])))
        with pytest.raises(ValueError, match=r"m\.safetensors"):
            read(path)


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


def test_a_later_version_is_named(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "m").write_bytes(sealed(whole.replace(b'storage\\":1', b'storage\\":2')))
    with pytest.raises(ValueError, match="m cannot be read: its format is version 2, and version 1 was expected"):
        read(tmp_path / "m")


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
