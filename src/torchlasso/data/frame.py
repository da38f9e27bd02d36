"""The columns of a table as they were read: numbers with gaps, and categories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchlasso.data.messages import listed

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Category:
    """A column of categories.

    Attributes:
        codes: of each row, the place of its value in ``values``, or −1 for a gap, int32 (n,).
        values: its distinct values.
    """

    codes: Array
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, index: Array) -> Category:
        """Select rows by their numbers."""
        return Category(self.codes[index], self.values)

    def recoded(self, values: Sequence[str], otherwise: int = -1) -> Array:
        """Return codes for other values; a value that is not among them gets the code ``otherwise``, a gap −1.

        >>> Category(np.array([0, 1, -1], dtype=np.int32), ("red", "blue")).recoded(("blue", "green")).tolist()
        [-1, 0, -1]
        """
        places = {value: place for place, value in enumerate(values)}
        known = np.array([*(places.get(value, otherwise) for value in self.values), -1], dtype=np.int32)
        return np.asarray(known[self.codes])


class TableColumns(ABC):
    """The columns of a table, in memory or on a disk.

    Attributes:
        names: of all columns, in their order.
        categories: those that are no numbers, by name.
        origins: the column of the file that a column was made of, such as a month of a date; others are their own.
        coarse: columns whose numbers float32 hardly tells apart (:mod:`~torchlasso.data.precision`).
    """

    names: tuple[str, ...]
    categories: Mapping[str, Category]
    origins: Mapping[str, str]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    @abstractmethod
    def numeric(self) -> tuple[str, ...]:
        """The names of the numeric columns."""

    @property
    @abstractmethod
    def gaps(self) -> dict[str, int]:
        """The number of gaps of each column that has any."""

    @abstractmethod
    def rows(self, index: Array) -> TableColumns:
        """Select rows by their numbers."""

    @abstractmethod
    def columns_of_numbers(self) -> Iterator[tuple[str, Array]]:
        """Yield the name and the values of each numeric column, float32 (n,); a gap is NaN."""

    @abstractmethod
    def category(self, name: str) -> Category:
        """Return a column as categories; numbers are written as text."""


@dataclass(frozen=True)
class Frame(TableColumns):
    """The columns of a table in memory.

    Attributes:
        names: of all columns, in their order.
        numbers: those of the numeric columns in their order, float32 (n, numeric columns); a gap is NaN.
        categories: the other columns, by name.
        origins: the column of the file that a column was made of, such as a month of a date; others are their own.
        coarse: columns whose numbers float32 hardly tells apart (:mod:`~torchlasso.data.precision`).
    """

    names: tuple[str, ...]
    numbers: Array
    categories: Mapping[str, Category] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    coarse: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def numeric(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in self.categories)

    @property
    def gaps(self) -> dict[str, int]:
        missing = np.isnan(self.numbers).sum(axis=0).tolist()
        counts = dict(zip(self.numeric, missing, strict=True))
        counts |= {name: int((column.codes < 0).sum()) for name, column in self.categories.items()}
        return {name: counts[name] for name in self.names if counts[name]}

    def rows(self, index: Array) -> Frame:
        categories = {name: column.rows(index) for name, column in self.categories.items()}
        return Frame(self.names, self.numbers[index], categories, self.origins)

    def columns_of_numbers(self) -> Iterator[tuple[str, Array]]:
        return zip(self.numeric, self.numbers.T, strict=True)

    def number(self, name: str) -> Array:
        """Return a numeric column, (n,)."""
        return np.asarray(self.numbers[:, self.numeric.index(name)])

    def category(self, name: str) -> Category:
        found = self.categories.get(name)
        return as_category(self.number(name)) if found is None else found


def as_category(numbers: Array) -> Category:
    """Return numbers as categories: whole ones without decimals.

    >>> as_category(np.array([2.0, np.nan, 0.5])).values
    ('0.5', '2')
    """
    values, codes = np.unique(numbers, return_inverse=True)
    values = values[~np.isnan(values)]
    codes = np.where(np.isnan(numbers), -1, codes.reshape(-1)).astype(np.int32)
    return Category(codes, tuple(str(int(v)) if v == int(v) else f"{v:.7g}" for v in values.tolist()))


def written_as(column: Category, known: Sequence[str]) -> Category:
    """Return a column of true and false as ``known`` has them: files write them as ``True``, ``TRUE``, ``true`` or 1.

    >>> written_as(Category(np.array([0, 1]), ("1", "false")), ("False", "True")).values
    ('True', 'False')
    """
    spelling = {value.lower(): value for value in known}
    if not spelling or not spelling.keys() <= {"true", "false"}:
        return column
    spelling |= {number: spelling[name] for number, name in (("1", "true"), ("0", "false")) if name in spelling}
    return Category(column.codes, tuple(spelling.get(value.lower(), value) for value in column.values))


def join_frames(frames: Sequence[Frame], origins: Sequence[str]) -> Frame:
    """Join the rows of frames with the same columns.

    A column that is numeric in some of them and categories in others becomes one of categories.

    Raises:
        ValueError: a frame has other columns than the first one.
    """
    first = frames[0]
    for frame, origin in zip(frames, origins, strict=True):
        refuse_other_columns(frame.names, first.names, origin)
    mixed = {name for frame in frames for name in frame.categories}
    numeric = [name for name in first.names if name not in mixed]
    numbers = []
    for frame in frames:
        place = {name: i for i, name in enumerate(frame.numeric)}
        numbers.append(frame.numbers[:, [place[name] for name in numeric]])
    categories = {name: _joined([frame.category(name) for frame in frames]) for name in first.names if name in mixed}
    return Frame(first.names, np.concatenate(numbers), categories, first.origins)


def _joined(parts: Sequence[Category]) -> Category:
    values = tuple(dict.fromkeys(value for part in parts for value in part.values))
    return Category(np.concatenate([part.recoded(values) for part in parts]), values)


def refuse_other_columns(names: Sequence[str], wanted: Sequence[str], origin: str, may_be: Sequence[str] = ()) -> None:
    """Refuse columns that differ from those of the training part.

    Args:
        names: the columns that are there.
        wanted: those of the training part.
        origin: the name of the data in messages.
        may_be: columns that may be there or not.

    Raises:
        ValueError: columns are missing, or there are others.
    """
    here, known = set(names), {*wanted, *may_be}
    missing = [name for name in wanted if name not in here]
    extra = [name for name in names if name not in known]
    if missing or extra:
        raise ValueError(
            f"{origin}: its columns differ from the columns of the training part "
            f"(missing: {listed(missing)}; only here: {listed(extra)}); add or remove these, or leave "
            "them out of training too, with ignore="
        )
