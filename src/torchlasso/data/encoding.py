"""Columns of a table as numbers: categories one-hot or as the rows of embeddings, gaps filled and marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.frame import Array, Category, Frame, TableColumns, refuse_other_columns, written_as
from torchlasso.data.messages import listed, row
from torchlasso.data.standardizer import Standardizer
from torchlasso.data.stored.rows import StoredRows

SHOWN = 5  # the most columns that are named in a note
MOST = 100  # categories of a column with an input of their own; rarer ones share one
MOST_ROWS = 10_000  # categories with a row of an embedding of their own
ONE_HOT, EMBEDDING = ENCODINGS = ("one-hot", "embedding")  # of categories


@dataclass(frozen=True)
class Encoding:
    """The inputs that the columns of a table become, as learned from the training rows.

    A numeric column is one input. Its gaps become the median of the training rows; if there are gaps in them, a second
    input is 1 in the rows with a gap. A column of categories is one-hot: an input for each category, one for all rare
    ones if there are more than 100, and one for gaps if the training rows have any. A category that the training rows
    do not have is as a rare one, or is 0 in all inputs of the column.

    For embeddings, a column of categories is one input: the number of a row of its embedding. Row 0 is for categories
    with a single training row, for all that are rarer than the 10,000 most frequent, and for those that the training
    rows do not have; the categories follow, and a row for gaps if the training rows have any.

    Attributes:
        columns: the columns that are read, in their order.
        medians: those of the numeric columns.
        gaps: the columns with gaps in the training rows.
        categories: the categories with an input of their own, by column.
        rare: the columns with an input for rare categories.
        left_out: the columns that are not read, and why.
        origins: the column of the file that a column was made of; others are their own.
        embedded: whether categories are numbers of rows of embeddings.

    >>> colours = Category(np.array([0, 1, -1]), ("red", "blue"))
    >>> frame = Frame(("age", "colour"), np.array([[20.0], [np.nan], [40.0]], dtype=np.float32), {"colour": colours})
    >>> encoding = Encoding.fit(frame, "a table")
    >>> encoding.features
    ('age', 'age is missing', 'colour=blue', 'colour=red', 'colour is missing')
    >>> encoding(frame)
    tensor([[20.,  0.,  0.,  1.,  0.],
            [30.,  1.,  1.,  0.,  0.],
            [40.,  0.,  0.,  0.,  1.]])
    >>> colours = Category(np.array([0, 1, 1, 2, 2, -1]), ("red", "blue", "green"))
    >>> frame = Frame(("colour",), np.zeros((6, 0), dtype=np.float32), {"colour": colours})
    >>> encoding = Encoding.fit(frame, "a table", embedded=True)
    >>> encoding(frame).flatten().tolist(), encoding.rows
    ([0.0, 1.0, 1.0, 2.0, 2.0, 3.0], {0: 4})
    """

    columns: tuple[str, ...]
    medians: dict[str, float]
    gaps: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    rare: tuple[str, ...]
    left_out: dict[str, str]
    origins: dict[str, str]
    embedded: bool = False

    @classmethod
    def fit(cls, frame: TableColumns, origin: str, *, embedded: bool = False) -> Encoding:
        """Learn the encoding from training rows.

        Columns that are empty, that have one category only, or of whose categories most have a single row, are left
        out.

        Args:
            frame: the training rows.
            origin: the name of the data in messages.
            embedded: whether categories are for embeddings.

        Raises:
            ValueError: no column is left.
        """
        medians, gaps, left_out = dict[str, float](), set[str](), dict[str, str]()
        for name, values in frame.columns_of_numbers():
            is_gap = np.isnan(values)
            if is_gap.all():
                left_out[name] = "it is empty"
                continue
            medians[name] = float(np.median(values[~is_gap]) if is_gap.any() else np.median(values))
            if is_gap.any():
                gaps.add(name)
        categories, rare = dict[str, tuple[str, ...]](), list[str]()
        for name, column in frame.categories.items():
            counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
            if reason := _useless(column, counts):
                left_out[name] = reason
                continue
            if (column.codes < 0).any():
                gaps.add(name)
            there = np.flatnonzero(counts)
            often = there[np.argsort(-counts[there], kind="stable")][: MOST_ROWS if embedded else MOST]
            if embedded:  # nothing can be learned from a single row; together they say what unseen values are like
                often = often[counts[often] > 1]
            if not len(often):
                left_out[name] = "each of its values has a single row"
                continue
            if len(there) > len(often):
                rare.append(name)
            categories[name] = tuple(sorted(column.values[i] for i in often.tolist()))
        kept = [name for name in frame.names if name not in left_out]
        if not kept:
            raise ValueError(f"{origin}: no column can be used: {_reasons(left_out)}")
        in_order = tuple(name for name in kept if name in gaps)
        return cls(tuple(kept), medians, in_order, categories, tuple(rare), left_out, dict(frame.origins), embedded)

    @classmethod
    def of_numbers(cls, means: dict[str, float]) -> Encoding:
        """Make the encoding of numbers without gaps in the training rows; those of other rows become ``means``."""
        return cls(tuple(means), means, (), {}, (), {}, {})

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the inputs, in their order."""
        return tuple(feature for features in self._by_column().values() for feature in features)

    @property
    def groups(self) -> dict[str, list[int]]:
        """The inputs of each column of the file."""
        found: dict[str, list[int]] = {}
        at = 0
        for column, features in self._by_column().items():
            found.setdefault(self.origins.get(column, column), []).extend(range(at, at + len(features)))
            at += len(features)
        return found

    @property
    def groups_of_several(self) -> dict[str, list[int]]:
        """The inputs of each column that has more than one."""
        return {name: inputs for name, inputs in self.groups.items() if len(inputs) > 1}

    @property
    def expanded(self) -> dict[str, int]:
        """The number of inputs of each column of categories, or of dates."""
        kinds = {self.origins.get(name, name) for name in self.categories}
        return {name: len(inputs) for name, inputs in self.groups.items() if name in kinds}

    @property
    def rows(self) -> dict[int, int]:
        """The rows of the embedding of each input that holds their numbers, by its place; none if one-hot."""
        found, gaps, at = dict[int, int](), {*self.gaps}, 0
        for column, features in self._by_column().items():
            if self.embedded and column in self.categories:
                found[at] = 1 + len(self.categories[column]) + (column in gaps)
            at += len(features)
        return found

    def _by_column(self) -> dict[str, list[str]]:
        """Return the names of the inputs of each column that is read."""
        gaps, rare, found = {*self.gaps}, {*self.rare}, dict[str, list[str]]()
        for column in self.columns:
            values = self.categories.get(column)
            if self.embedded and values is not None:
                found[column] = [column]
                continue
            named = [column] if values is None else [f"{column}={value}" for value in values]
            named += [f"{column}: others"] * (column in rare) + [f"{column} is missing"] * (column in gaps)
            found[column] = named
        return found

    def __call__(self, frame: Frame) -> Tensor:
        """Encode rows, (n, inputs).

        Raises:
            ValueError: a column is missing.
        """
        x = np.zeros((len(frame), len(self.features)), dtype=np.float32)
        at, place, gaps, rare = 0, {name: i for i, name in enumerate(frame.numeric)}, {*self.gaps}, {*self.rare}
        for name in self.columns:
            if (values := self.categories.get(name)) is None:
                numbers = frame.numbers[:, place[name]]
                is_gap = np.isnan(numbers)
                x[:, at] = np.where(is_gap, np.float32(self.medians[name]), numbers)
                at += 1
            elif self.embedded:
                x[:, at] = self._row_numbers(frame.category(name), values, name in gaps)
                at += 1
                continue
            else:
                column, others = frame.category(name), name in rare
                codes = column.recoded(values, otherwise=len(values) if others else -1)
                known = np.flatnonzero(codes >= 0)
                x[known, at + codes[known]] = 1
                is_gap = column.codes < 0
                at += len(values) + others
            if name in gaps:
                x[:, at] = is_gap
                at += 1
        return torch.from_numpy(x)

    def _row_numbers(self, column: Category, values: tuple[str, ...], with_gaps: bool) -> Array:
        """Return the rows of an embedding: 0 for other values, then those of the values, then that of gaps."""
        rows = column.recoded(values) + 1
        return np.where(column.codes < 0, len(values) + 1, rows) if with_gaps else rows

    def aligned(self, frame: Frame, origin: str) -> Frame:
        """Return the columns that the encoding reads, of the kinds that it knows.

        Raises:
            ValueError: columns are missing, there are others, or one that had numbers has text.
        """
        self.refuse_others(frame, origin)
        place = {name: i for i, name in enumerate(frame.numeric)}
        blank = np.full(len(frame), np.nan, dtype=np.float32)
        numbers = [frame.numbers[:, place[name]] if name in place else blank for name in self.medians]
        nothing = Category(np.full(len(frame), -1, dtype=np.int32), ())
        there = {*frame.names}  # the parts of dates are not, where a column of dates is empty
        categories = {
            name: written_as(frame.category(name), known) if name in there else nothing
            for name, known in self.categories.items()
        }
        stacked = np.stack(numbers, axis=1) if numbers else np.zeros((len(frame), 0), dtype=np.float32)
        return Frame(self.columns, stacked, categories, self.origins)

    def refuse_others(self, frame: TableColumns, origin: str) -> None:
        """Refuse columns that are not those of the training rows, or that have text where those have numbers.

        Raises:
            ValueError: there are such columns.
        """
        empty = {name for name, count in frame.gaps.items() if count == len(frame)}
        parts = [name for name, column in self.origins.items() if column in empty and name not in frame.origins]
        refuse_other_columns((*frame.names, *parts), self.columns, origin, (*self.left_out, *parts))
        for name in self.medians:
            if (column := frame.categories.get(name)) is not None and (column.codes >= 0).any():
                first = int((column.codes >= 0).argmax())
                text = column.values[column.codes[first]]
                raise ValueError(
                    f"{origin}: column {name!r} holds {text!r} in {row(first)}; in training it has numbers"
                )

    def notes(self, frame: TableColumns) -> list[str]:
        """Say what rows have that the training rows did not: new categories, and gaps in other columns."""
        found, gaps, rare = list[str](), {*self.gaps}, {*self.rare}
        there = {*frame.names}
        for name, values in self.categories.items():
            if name not in there:  # a part of an empty column of dates
                continue
            column = frame.category(name)
            counts, known = np.bincount(column.codes + 1, minlength=len(column.values) + 1), {*values}
            new = [i for i, value in enumerate(column.values) if counts[i + 1] and value not in known]
            if new and name not in rare:
                shown = listed((column.values[i] for i in new), most=SHOWN)
                count = int(counts[[i + 1 for i in new]].sum())
                rows = "1 row" if count == 1 else f"{count:,} rows"
                found.append(f"column {name!r} has values in {rows} that are not in training ({shown})")
        read = {*self.columns}
        new_gaps = [f"{name} {count:,}" for name, count in frame.gaps.items() if name in read and name not in gaps]
        if new_gaps:
            more = f" and {len(new_gaps) - SHOWN} more" if len(new_gaps) > SHOWN else ""
            found.append(
                f"there are gaps in columns that have none in training ({', '.join(new_gaps[:SHOWN])}{more}); numbers "
                "become the median of training, categories none"
            )
        return found

    def standardizer(self, x: Tensor | StoredRows) -> Standardizer:
        """Compute the scaling of encoded rows: that of numbers, and none of the inputs that are 0 or 1, or rows."""
        scale = Standardizer.fit(x)
        is_number = [feature in self.medians for feature in self.features]
        mean = tuple(value if number else 0.0 for value, number in zip(scale.mean, is_number, strict=True))
        std = tuple(value if number else 1.0 for value, number in zip(scale.std, is_number, strict=True))
        return Standardizer(mean, std)


def _useless(column: Category, counts: Array) -> str | None:
    """Return why a column of categories is of no use, or None."""
    there, rows = int((counts > 0).sum()), int(counts.sum())
    if not there:
        return "it is empty"
    if there == 1 and rows == len(column):
        return "all rows have the same value"
    if there > MOST and 2 * there > rows:
        return f"its text is different in most rows ({there:,} values in {rows:,} rows); text= reads it, alone"
    return None


def _reasons(left_out: dict[str, str]) -> str:
    shown = [f"{name!r}: {reason}" for name, reason in left_out.items()]
    return "; ".join(shown[:3]) + (f"; and {len(shown) - 3} more" if len(shown) > 3 else "")
