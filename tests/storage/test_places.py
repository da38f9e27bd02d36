"""The code of the positions of nonzeros: it follows the format, is short, and is read back or refused."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchlasso.storage import golomb
from torchlasso.storage.golomb import Flags, decode, encode


@st.composite
def flags(draw: st.DrawFn) -> Flags:
    size, density = draw(st.integers(0, 300)), draw(st.floats(0, 1))
    return np.random.default_rng(draw(st.integers(0, 2**32))).random(size) < density


def reference(marked: Flags, low_bits: int) -> str:
    """The code as docs/format.md tells it, a gap at a time."""
    rarer = [bool(flag) == (2 * marked.sum() <= marked.size) for flag in marked]
    where = [-1, *(place for place, flag in enumerate(rarer) if flag)]
    gaps = [b - a - 1 for a, b in itertools.pairwise(where)]
    low = "".join(str(gap >> bit & 1) for bit in range(low_bits) for gap in gaps)
    unary = "".join("0" * (gap >> low_bits) + "1" for gap in gaps)
    return low + unary + "0" * (-len(low + unary) % 8)


def bits(code: golomb.Bytes) -> str:
    return "".join(map(str, np.unpackbits(code)))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(flags(), st.sampled_from([8, 64, 1 << 18]))
def test_the_code_follows_the_format_with_the_best_k_and_is_read_back(marked: Flags, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golomb, "PIECE", piece)
        code, low_bits = encode(marked)
        assert bits(code) == reference(marked, low_bits)
        assert len(bits(code)) == min(len(reference(marked, k)) for k in range(10))
        places = [*decode(code, low_bits, marked.size, int(marked.sum()))]
        assert np.array_equal(np.concatenate([np.empty(0, int), *places]), np.flatnonzero(marked))


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.3, 0.38, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("arrangement", ["anywhere", "rows", "first", "last", "even"])
def test_the_code_is_never_much_longer_than_the_entropy(density: float, arrangement: str) -> None:
    size, rng = 100_000, np.random.default_rng(0)
    marked = np.zeros(size, bool)
    count = int(density * size)
    match arrangement:
        case "anywhere":
            marked[rng.permutation(size)[:count]] = True
        case "rows":
            marked.reshape(100, 1000)[rng.permutation(100)[: max(1, int(density * 100))]] = True
        case "even":
            marked[(np.arange(count) * (size / count)).astype(int)] = True
        case _:
            marked[slice(count) if arrangement == "first" else slice(size - count, None)] = True
    share = marked.mean()
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    rarer = min(share, 1 - share)
    most = min(rarer * (k + 1) + (1 - rarer) / 2**k for k in range(20))
    used = 8 * encode(marked)[0].size
    assert used <= size * most + 7
    assert used <= 1.045 * size * entropy + 7 or arrangement != "anywhere"
    assert used + 16 * size * share <= 1.024 * size * (16 * share + entropy) + 7


@pytest.mark.parametrize("low_bits", range(7, 13))
def test_far_apart_positions_are_read_back(low_bits: int) -> None:
    """Low bits that fill a byte, and more of them."""
    rng = np.random.default_rng(low_bits)
    marked = rng.random(40 << low_bits) < 0.7 / (1 << low_bits)
    code, best = encode(marked)
    assert low_bits - 1 <= best <= low_bits + 1
    places = np.concatenate([*decode(code, best, marked.size, int(marked.sum()))])
    assert np.array_equal(places, np.flatnonzero(marked))


CODE, LOW_BITS = encode(np.arange(1000) % 17 == 3)
COUNT = 59


def altered(place: int, by: int) -> golomb.Bytes:
    code = CODE.copy()
    code[place] ^= by
    return code


REFUSED = {
    "too few marks": (altered(-1, 0xFF & -int(CODE[-1]) & int(CODE[-1])), LOW_BITS, 1000, COUNT),
    "a bit too many": (altered(-1, 1), LOW_BITS, 1000, COUNT),
    "cut": (CODE[:-1], LOW_BITS, 1000, COUNT),
    "empty": (CODE[:0], LOW_BITS, 1000, COUNT),
    "a byte too many": (np.append(CODE, np.uint8(0)), LOW_BITS, 1000, COUNT),
    "one more": (CODE, LOW_BITS, 1000, COUNT + 1),
    "one less": (CODE, LOW_BITS, 1000, COUNT - 1),
    "more than there are places": (CODE, LOW_BITS, 10, 11),
    "negative": (CODE, LOW_BITS, 1000, -1),
    "places too few": (CODE, LOW_BITS, 900, COUNT),
    "negative k": (CODE, -1, 1000, COUNT),
    "huge k": (CODE, 40, 1000, COUNT),
    "absurd k": (CODE, 10**18, 1000, COUNT),
    "absurd k for none": (CODE[:0], 10**18, 1000, 0),
    "something for none": (CODE, 0, 1000, 0),
    "k larger than any place": (np.array([0, 0, 0, 0, 0, 128], np.uint8), 40, 1000, 1),
    "more marks than told": (np.array([0b00111000], np.uint8), 1, 8, 2),
    "longer than its places": (np.append(np.zeros(10**5, np.uint8), np.uint8(1)), 0, 10, 1),
    "a byte too many of a bitmask": (np.array([128, 0], np.uint8), 0, 100, 1),
    "huge counts": (CODE, 0, 10**15, 10**14),
    "huge quotients": (np.zeros(1000, np.uint8), 8, 2000, 3),
    "a place outside": (np.array([255, 255, 255, 1, 192], np.uint8), 8, 2000, 3),
}


@pytest.mark.parametrize(("code", "low_bits", "size", "count"), REFUSED.values(), ids=REFUSED)
def test_another_code_is_refused_before_much_is_allocated(
    code: golomb.Bytes, low_bits: int, size: int, count: int
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"position|places"):
            _ = [*decode(code, low_bits, size, count)]
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
