"""A sparse tensor, stored as its nonzero values and their positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlasso.storage.golomb import ByteArray, Integers, decode, encode, marked_places

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
INTEGERS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}  # by width in bytes
NARROW = (torch.bfloat16, torch.float16)  # the dtypes that wider values may be rounded to
WIDE = (torch.float64, torch.float32)


@dataclass(frozen=True)
class Record:
    """The description of a stored tensor: its nonzero values, then the code of their positions."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nonzeros: int
    low_bits: int  # k of the code
    values: torch.dtype  # the dtype of the stored values

    def to_json(self) -> list[Any]:
        """Convert to the form in the file."""
        return [NAMES[self.dtype], list(self.shape), self.nonzeros, self.low_bits, NAMES[self.values]]

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """Convert from the form in the file.

        Raises:
            ValueError: the content is not such a record.
        """
        match content:
            case [str(name), [*shape], int(nonzeros), int(low_bits), str(stored)]:
                dtype, values = DTYPES.get(name), DTYPES.get(stored)
                right = values == dtype or (values in NARROW and dtype in WIDE)
                if dtype and values and right and all(type(n) is int and n >= 0 for n in shape):
                    return cls(dtype, tuple(shape), nonzeros, low_bits, values)
        raise ValueError(f"its record is {content!r:.80}")

    def unpack(self, data: ByteArray) -> Tensor:
        """Decode the tensor from its bytes.

        Raises:
            ValueError: the bytes do not fit the record.
        """
        found = self.nonzeros_of(data)
        w = torch.empty(self.shape, dtype=self.dtype)
        found.write_to(w)
        return w

    def nonzeros_of(self, data: ByteArray) -> Nonzeros:
        """Decode the values and their positions.

        Raises:
            ValueError: the bytes do not fit the record.
        """
        size, end = math.prod(self.shape), self.nonzeros * self.values.itemsize
        if not 0 <= end <= data.size:
            raise ValueError(f"it has {data.size} bytes and {self.nonzeros} values of {self.values.itemsize}")
        stored = torch.from_numpy(data[:end].copy().view(f"u{self.values.itemsize}")).view(self.values)
        small = np.int32 if size < 1 << 31 else np.int64
        places: list[Integers] = [
            some.astype(small) for some in decode(data[end:], self.low_bits, size, self.nonzeros) if some.size
        ]
        return Nonzeros(_bits(stored.to(self.dtype)), places)


@dataclass(frozen=True)
class Nonzeros:
    """The bits of the values of a tensor that are not zero, and their positions, in order and in pieces."""

    values: NDArray[Any]
    places: list[Integers]

    def write_to(self, w: Tensor) -> None:
        """Write the whole tensor into a contiguous one of its size and dtype, piece by piece while a cache holds it."""
        bits: NDArray[Any] = w.detach().view(-1).view(INTEGERS[w.itemsize]).numpy()
        done, start = 0, 0
        for places in self.places:
            end = int(places[-1]) + 1
            bits[start:end] = 0
            bits[places] = self.values[done : done + places.size]
            done, start = done + places.size, end
        bits[start:] = 0


def pack(w: Tensor, values: torch.dtype | None = None) -> tuple[Record, ByteArray]:
    """Encode a contiguous tensor on the CPU; return its record and its bytes.

    Values of 32 or 64 bits are rounded to the dtype ``values``, unless one of them would become zero or infinite.

    >>> record, data = pack(torch.tensor([0.0, 0.5, 0.0, 0.0]))
    >>> record.nonzeros, len(data)
    (1, 5)
    >>> record.unpack(data)
    tensor([0.0000, 0.5000, 0.0000, 0.0000])
    """
    nonzero = w.reshape(-1).bool().numpy()  # the same as w != 0, but faster
    code, low_bits = encode(nonzero)
    bits = _bits(w)
    kept = torch.from_numpy(np.concatenate([bits[:0], *(bits[places] for places in marked_places(nonzero))])).view(
        w.dtype
    )
    if values and w.dtype in WIDE:
        kept = _rounded(kept, values)
    record = Record(w.dtype, tuple(w.shape), len(kept), low_bits, kept.dtype)
    return record, np.concatenate([as_bytes(kept), code])


def as_bytes(w: Tensor) -> ByteArray:
    """View the memory of a contiguous tensor on the CPU as bytes."""
    return _bits(w).view(np.uint8)


def _bits(w: Tensor) -> NDArray[Any]:
    """View the bits of each element as an integer."""
    return np.ascontiguousarray(w.reshape(-1).view(INTEGERS[w.itemsize]).numpy())


def _rounded(kept: Tensor, values: torch.dtype) -> Tensor:
    rounded = kept.to(values)
    same = ((rounded != 0) & (rounded.isfinite() == kept.isfinite())).all()
    return rounded if same else kept
