"""A file of weights, its parts, and a check of all that may come of reading an altered one."""

from __future__ import annotations

import functools
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.storage import read

MEMORY = 1 << 21  # bytes that a load may take besides 20 times the file, which has 4 kB; a megabyte is read at a time
LIMIT = 1 << 16
SEAL = b'crc32\\":\\"'
State = Mapping[str, tuple[torch.dtype, tuple[int, ...], bytes]]


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
