"""A code of marked positions with hardly more bits than their entropy.

The gaps between the marks are Golomb–Rice coded: for a gap g, the lowest k bits, and ⌊g/2ᵏ⌋ in unary, as that many
zeros and a one. All gaps have the same k, the best for them; with k = 0 the code is the bitmask. The low bits come
first: the lowest bit of all gaps, then the next bit, and so on. The unary parts come last. So whole arrays are coded at
a time. If more than half of the positions are marked, the unmarked positions are coded instead.

Golomb, "Run-length encodings", IEEE Transactions on Information Theory 12 (1966); Rice, "Some practical universal
noiseless coding techniques", JPL Publication 79-22 (1979).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]
Integers = NDArray[np.integer[Any]]

PIECE = 1 << 16  # positions or bits at a time, so that the integers made from them stay in the cache
MOST_LOW_BITS = 48  # more would be best only for a tensor of 2⁴⁷ weights


def encode(marked: Flags) -> tuple[ByteArray, int]:
    """Encode the marks; return the code and its k.

    >>> code, low_bits = encode(np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], bool))
    >>> low_bits, np.unpackbits(code)  # the gaps 5 and 3: low bits 1 1, then 001 01
    (1, array([1, 1, 0, 0, 1, 0, 1, 0], dtype=uint8))
    """
    count = int(np.count_nonzero(marked))
    if 2 * count > marked.size:
        marked, count = ~marked, marked.size - count
    if not count:
        return np.empty(0, np.uint8), 0
    gaps = list(_gaps(marked))
    low_bits = _best_low_bits(gaps, marked.size, count)
    if not low_bits:
        return np.packbits(marked[: marked.size - marked[::-1].argmax()]), 0  # up to the last mark
    planes = [[(some >> bit & 1).astype(bool) for some in gaps] for bit in range(low_bits)]
    unary = [_unary(some >> low_bits) for some in gaps]
    return np.packbits(np.concatenate([part for plane in (*planes, unary) for part in plane])), low_bits


def decode(code: ByteArray, low_bits: int, size: int, count: int) -> Iterator[Integers]:
    """Decode ``count`` marked positions of ``size``: yield them in order, an array for each piece.

    It allocates at most ``size`` bytes and a multiple of the code's length.

    Raises:
        ValueError: the code does not have this number of positions and marks.
    """
    if not 0 <= count <= size:
        raise ValueError(f"{count} of {size} places are marked")
    inverse = 2 * count > size
    coded = size - count if inverse else count
    unary = 8 * code.size - low_bits * coded  # bits of the unary part, with up to 7 bits of padding
    # Refuse numbers that no encoder writes, so that no sum below overflows: the best k has 2ᵏ ≤ 2·size/count, and the
    # quotients sum up to at most size/2ᵏ.
    if not 0 <= low_bits <= MOST_LOW_BITS or coded << low_bits > 2 * size or unary - coded - 7 > size >> low_bits:
        raise ValueError(f"its positions cannot have {low_bits} low bits")
    if unary < coded:
        raise ValueError(f"its positions are cut short: {code.size} bytes for {coded} of them")
    found = _coded_places(code, low_bits, size, coded) if low_bits else _places_of_mask(code, size, coded)
    return _other_places(found, size) if inverse else found


def marked_places(marked: Flags) -> Iterator[Integers]:
    """Yield the marked positions, an array for each piece."""
    for start in range(0, marked.size, PIECE):
        yield start + np.flatnonzero(marked[start : start + PIECE])


def _gaps(marked: Flags) -> Iterator[Integers]:
    """Return the number of positions between each mark and the one before, as small integers."""
    last, dtype = -1, np.min_scalar_type(marked.size)
    for places in marked_places(marked):
        if places.size:
            yield (np.diff(places, prepend=last) - 1).astype(dtype)
            last = places[-1]


def _best_low_bits(gaps: list[Integers], size: int, count: int) -> int:
    """Return the k with the shortest code; k + 1 can be better only while 2ᵏ < size/count."""
    candidates = range((2 * size // count).bit_length())
    lengths = [count * (k + 1) + sum(int((some >> k).sum()) for some in gaps) for k in candidates]
    return lengths.index(min(lengths))


def _unary(numbers: Integers) -> Flags:
    ends = np.cumsum(numbers + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1, bool)  # int: numpy 1 makes unsigned + 1 a float
    bits[ends] = True
    return bits


def _other_places(found: Iterator[Integers], size: int) -> Iterator[Integers]:
    others = np.ones(size, bool)
    for places in found:
        others[places] = False
    yield from marked_places(others)


def _places_of_mask(code: ByteArray, size: int, count: int) -> Iterator[Integers]:
    bits = np.unpackbits(code).view(bool)
    if np.count_nonzero(bits) != count or bits[size:].any() or (bits.size and not bits[-8:].any()):
        raise ValueError(f"its bitmask is not one of {count} positions in {size}")
    yield from marked_places(bits[:size])


def _coded_places(code: ByteArray, low_bits: int, size: int, count: int) -> Iterator[Integers]:
    # Up to mark i there are i marks, and the elements of all gaps: 2ᵏ for each 0 of the unary part, and the low bits.
    done, low, end = 0, 0, -1  # the number of marks, the sum of their low bits, and the end of the last unary part
    unary = 8 * code.size - low_bits * count
    for start in range(0, unary, PIECE):
        bits = _bits(code, low_bits * count + start, min(PIECE, unary - start))
        places = np.flatnonzero(bits.view(bool))  # much faster than of integers
        if not places.size:
            continue
        if done + places.size > count:
            raise ValueError(f"it has more than {count} positions")
        end = start + int(places[-1])
        marks = np.arange(done, done + places.size)
        places += start
        places -= marks
        places <<= low_bits
        places += marks
        sums = np.cumsum(_low(code, low_bits, count, done, places.size), dtype=places.dtype)
        sums += low
        places += sums
        done, low = done + places.size, int(sums[-1])
        if places[-1] >= size:
            raise ValueError(f"it has a position of {places[-1]} in {size} places")
        yield places
    if done < count or unary - (end + 1) > 7:
        raise ValueError(f"it has {done} positions instead of {count}")


def _low(code: ByteArray, low_bits: int, count: int, start: int, number: int) -> Integers:
    """Return the low bits of some gaps, as bytes if they fit, which is faster."""
    found: Integers = np.zeros(number, np.uint8 if low_bits <= 8 else np.int64)
    for bit in range(low_bits):
        found |= _bits(code, bit * count + start, number).astype(found.dtype) << bit
    return found


def _bits(code: ByteArray, start: int, count: int) -> ByteArray:
    first, skipped = divmod(start, 8)
    return np.unpackbits(code[first:], count=skipped + count)[skipped:]
