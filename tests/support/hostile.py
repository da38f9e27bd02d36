"""Checks that a hostile file is refused, and damaged copies of a file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchlasso.cli.main import main

DAMAGED_COPIES = 25


def assert_predict_refuses(path: Path, capture: pytest.CaptureFixture[str], begins: str) -> None:
    """Exit code 2, nothing on standard output, and one line on standard error, which begins like this."""
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(path), "--data", "digits"])
    out, err = capture.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(begins)
    assert len(err) <= 400, err


def flip(content: bytearray, rng: random.Random) -> None:
    """Flip one bit."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def damaged_copies(content: bytes, seed: int) -> Iterator[bytes]:
    """Copies with a few flipped bits; each fifth one is cut off, too."""
    rng = random.Random(seed)
    for trial in range(DAMAGED_COPIES):
        damaged = bytearray(content)
        if trial % 5 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        for _ in range(rng.choice([1, 1, 3]) if damaged else 0):
            flip(damaged, rng)
        yield bytes(damaged)
