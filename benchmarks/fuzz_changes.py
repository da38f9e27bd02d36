"""Random changes of files: of their bytes, of the values in their JSON, of the files in an archive."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

CANARY = "fuzz_canary"  # a module that tells when it is imported
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, 2**31, 2**63, 10**30, -(10**18), "",
    "x", "\x1b[2J\x1b]0;title\x07", "[bold]x[/bold]",
    "<script>alert(1)</script>", "\u202egnp", "\ud83d", "$\\frac$", "../../../etc/passwd", "a" * 5000, "nan",
    [], {}, [[]],
    [1, 2, 3], {"a": 1}, f"{CANARY}:run", "os:getcwd", "hf:x", "/dev/zero",
    "mlp:width=100000000", "mlp:depth=100000000",
)  # fmt: skip


def mutate(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Change the content of a file: as bytes, as an archive, or as JSON where there is some."""
    ways: list[Callable[[bytes, random.Random, list[bytes]], bytes]] = [_bytes_changed]
    if content[:1] in b"{[":
        ways += [_json_changed] * 4
    if content[:2] == b"PK":
        ways.append(_member_changed)
    if content[8:9] == b"{":
        ways.append(_header_changed)
    return rng.choice(ways)(content, rng, others)


def _bytes_changed(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1000))
        match rng.choice(("flip", "flip", "flip", "cut", "drop", "insert", "zeros", "ones", "repeat", "splice")):
            case "flip" if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case "cut":
                del changed[place:]
            case "drop":
                del changed[place : place + length]
            case "insert":
                changed[place:place] = rng.randbytes(length)
            case "zeros" | "ones" as kind:
                changed[place : place + length] = (b"\0" if kind == "zeros" else b"\xff") * length
            case "repeat":
                changed[place:place] = changed[place : place + length] * rng.choice((1, 2, 50))
            case "splice":
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                changed[place : place + length] = other[start : start + length]
    return bytes(changed)


def _json_changed(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    if rng.random() < 0.1:
        deep = rng.choice((500, 5_000, 200_000))
        return rng.choice((b"[" * deep, b'{"options":' * deep + b"1" + b"}" * deep, b"[" * deep + b"]" * deep))
    lines = content.splitlines() if content[:1] == b"{" and content.count(b"\n{") else [content]
    k = rng.randrange(len(lines))
    try:
        lines[k] = json.dumps(changed_value(json.loads(lines[k]), rng)).encode()
    except (RecursionError, ValueError):  # not whole JSON
        return _bytes_changed(content, rng, others)
    return b"\n".join(lines) + b"\n"


def changed_value(value: Any, rng: random.Random) -> Any:
    """Change one entry, anywhere in a value of JSON: to something strange, or away with it."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key} if isinstance(value, dict) else value[:key]
        changed = dict(value) if isinstance(value, dict) else list(value)
        changed[key] = changed_value(changed[key], rng)  # type: ignore[index]
        return changed
    return rng.choice(STRANGE)


def _member_changed(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return an intact archive with one of its files changed."""
    target = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as new:
            names = source.namelist()
            chosen = rng.choice(names)
            for name in names:
                held = source.read(name)
                new.writestr(name, mutate(held, rng, others) if name == chosen else held)
    except (zipfile.BadZipFile, ValueError):
        return _bytes_changed(content, rng, others)
    return target.getvalue()


def _header_changed(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return a safetensors file with another header of the right length."""
    (length,) = struct.unpack("<Q", content[:8])
    header = _json_changed(content[8 : 8 + length].rstrip(), rng, others)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]
