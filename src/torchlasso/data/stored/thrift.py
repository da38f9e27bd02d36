"""The compact protocol of Apache Thrift, in which footers of Parquet files are written."""

from __future__ import annotations

from collections.abc import Iterator

BOOLEANS, BYTE, DOUBLE, BINARY, LISTS, STRUCT, UUID = (1, 2), 3, 7, 8, (9, 10), 12, 13  # the types of values
WHOLE = (4, 5, 6)
FIXED = {BYTE: 1, DOUBLE: 8, UUID: 16}  # bytes
FEW = 15  # items of a list, whose number is beside the type of the items


class Cursor:
    """A place in bytes, which moves on as values are read.

    Raises:
        IndexError: the bytes end within a value.

    >>> cursor = Cursor(bytes([0x15, 6, 0x18, 2, 97, 98, 0]))
    >>> for number, kind in cursor.fields():
    ...     if number == 1:
    ...         print(cursor.integer())
    ...     else:
    ...         cursor.skip(kind)
    3
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield the number and the type of each field of a struct; the caller reads or skips its value."""
        number = 0
        while head := self.content[self.at]:
            self.at += 1
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15
        self.at += 1

    def integer(self) -> int:
        """Read a whole number."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def count(self) -> int:
        """Read the head of a list, and return the number of its items."""
        head = self.content[self.at]
        self.at += 1
        return head >> 4 if head >> 4 != FEW else self._varint()

    def skip(self, kind: int) -> None:
        """Skip a value.

        Raises:
            ValueError: there is no such type.
        """
        self.at = _after(self.content, self.at, kind)
        if self.at > len(self.content):
            raise IndexError("a value ends behind the end")

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.content[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def _after(content: bytes, at: int, kind: int) -> int:
    """Return the place after a value."""
    if kind in WHOLE:
        while content[at] > 127:
            at += 1
        return at + 1
    if kind == STRUCT:
        while head := content[at]:
            at += 1
            item = head & 15
            if head < 16:
                at = _after(content, at, WHOLE[0])
            if item in WHOLE:  # here, and not by a call: most values of footers are such
                while content[at] > 127:
                    at += 1
                at += 1
            elif item == BINARY and content[at] < 128:
                at += 1 + content[at]
            elif item not in BOOLEANS:
                at = _after(content, at, item)
        return at + 1
    if kind == BINARY:
        cursor = Cursor(content)
        cursor.at = at
        return cursor._varint() + cursor.at
    if kind in LISTS:
        cursor = Cursor(content)
        cursor.at, item = at, content[at] & 15
        count, at = cursor.count(), cursor.at
        for _ in range(count):
            at = at + 1 if item in BOOLEANS else _after(content, at, item)
        return at
    if kind in FIXED:
        return at + FIXED[kind]
    raise ValueError(f"its footer has a value of an unknown type, {kind}")


def integer(value: int) -> bytes:
    """Write a whole number.

    >>> integer(3).hex(), integer(-200).hex()
    ('06', '8f03')
    """
    return _varint((value << 1) ^ (value >> 63))


def texts(*values: bytes) -> bytes:
    """Write a struct of texts: its first fields."""
    return b"".join(b"\x18" + _varint(len(value)) + value for value in values) + b"\x00"


def list_of(count: int, items: bytes) -> bytes:
    """Write a list of structs."""
    head = bytes([count << 4 | STRUCT]) if count < FEW else bytes([FEW << 4 | STRUCT]) + _varint(count)
    return head + items


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
