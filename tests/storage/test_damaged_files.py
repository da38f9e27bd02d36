"""Files that were cut or altered: a clear error or the same tensors, little memory, and no partial load."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import torchlasso as tl
from tests.support.weight_files import check, joined, model, parts, sealed
from torchlasso.storage import read

pytestmark = pytest.mark.slow

Alteration = Callable[[bytes], bytes]


@functools.cache
def written(folder: Path) -> bytes:
    tl.save(model(), folder / "whole.safetensors", metadata={"format": "pt"})
    return (folder / "whole.safetensors").read_bytes()


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


def test_a_later_version_is_named(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "m").write_bytes(sealed(whole.replace(b'storage\\":1', b'storage\\":2')))
    with pytest.raises(ValueError, match="m cannot be read: its format is version 2, and version 1 was expected"):
        read(tmp_path / "m")
