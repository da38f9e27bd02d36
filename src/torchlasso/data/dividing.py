"""Training, validation and test rows: those that the data come with, named files, or shares of the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torchlasso.data.labels import ColumnSelection
from torchlasso.data.messages import listed
from torchlasso.data.records import Part
from torchlasso.data.registry import Portion, Source, find_reader
from torchlasso.data.roles import required_weights
from torchlasso.data.splits import TEST_FRACTION, TEST_SEED, hold_out
from torchlasso.data.stored.options import StreamOptions
from torchlasso.data.streaming import choose_stream, read_portion
from torchlasso.data.texts import TextRows

VALIDATION_FRACTION = 0.1
EARLIER = ", the earlier rows"


@dataclass(frozen=True)
class SplitOptions:
    """The division of rows into training, validation and test rows.

    Attributes:
        validation: a share of the training rows, or a file or folder; None for the data's own validation part, or else
            a tenth of the training rows.
        test: the same for the test rows; without a test part, a fifth of the training rows.
        seed: of the choice of validation rows. That of the test rows is always the same.
        stratify: whether numbers as labels are stratified, by tenths; classes always are.
        stream: whether rows stay on the disk.
    """

    validation: float | str | None = 0.0
    test: float | str | None = None
    seed: int = 0
    stratify: bool = False
    stream: StreamOptions = StreamOptions()

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not 0 <= value < 1:
                raise ValueError(f"{name} must be a share, at least 0 and below 1, or a file; got {value!r}")
        if self.test == 0:
            raise ValueError("test must be above 0: figures are of test rows")


@dataclass(frozen=True)
class DataSplit:
    """The rows of a part.

    Attributes:
        rows: as they were read.
        origin: the name of the data in messages.
        how: where the rows are from, in words.
    """

    rows: Part
    origin: str
    how: str


@dataclass(frozen=True)
class SplitData:
    """The parts of the data, before they are prepared.

    Attributes:
        name: of the data.
        train, test: rows with labels.
        validation: the same, or None.
        notes: parts of the data that are not used, a sentence each.
        is_survival: whether labels are times and events.
    """

    name: str
    train: DataSplit
    test: DataSplit
    validation: DataSplit | None
    notes: tuple[str, ...]
    is_survival: bool = False

    @property
    def parts(self) -> dict[str, DataSplit]:
        """The parts that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}


def split_data(spec: str, columns: ColumnSelection, division: SplitOptions) -> SplitData:
    """Read data and divide them.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: the data cannot be used, or there are too few rows to divide.
    """
    columns = replace(columns, of_a_part=True)
    source = find_reader(spec).open(spec, columns)
    portion = source.training(spec)
    stream, notes = choose_stream(
        division.stream, [p for p in (portion, source.validation, source.test) if p is not None]
    )
    train = _whole(portion, stream)
    required_weights(train.rows, columns.weight, train.origin)
    if isinstance(train.rows.x, TextRows) and train.rows.x.columns != columns.text:
        columns = replace(columns, text=train.rows.x.columns)  # of all parts
        source = find_reader(spec).open(spec, columns)
    if division.test is None and source.test is None:
        train, test = _share(train, TEST_FRACTION, TEST_SEED, division.stratify, "test")
    elif isinstance(division.test, float | int):
        train, test = _share(train, division.test, TEST_SEED, division.stratify, "test")
        notes += _unused("test", source.test)
    else:
        test = _own("test", division.test, source.test, columns, stream)
    validation: DataSplit | None
    if division.validation is None and source.validation is None:
        train, validation = _share(train, VALIDATION_FRACTION, division.seed, division.stratify, "validation")
    elif isinstance(division.validation, float | int):
        train, validation = _share(train, division.validation, division.seed, division.stratify, "validation")
        notes += _unused("validation", source.validation)
    else:
        validation = _own("validation", division.validation, source.validation, columns, stream)
    held = validation if validation and len(validation.rows.x) else None
    found = SplitData(source.name, train, test, held, tuple(notes), columns.survival is not None)
    _refuse_absent(found)
    _refuse_shared_groups(found)
    return found


def _whole(portion: Portion, stream: StreamOptions) -> DataSplit:
    return DataSplit(read_portion(portion, stream), portion.origin, portion.origin)


def _own(
    name: str, given: str | None, portion: Portion | None, columns: ColumnSelection, stream: StreamOptions
) -> DataSplit:
    """Read a part from a given file, or from the data's own part."""
    if given is not None:
        if not Path(given).exists():
            raise FileNotFoundError(f"{name}: {given} is neither a share, such as 0.1, nor a file")
        source: Source = find_reader(given).open(given, columns)
        portion = getattr(source, name) or source.train or source.test or source.validation
    if portion is None:
        raise ValueError(f"{given}: no rows for the {name} part")
    return _whole(portion, stream)


def _share(train: DataSplit, fraction: float, seed: int, stratify: bool, name: str) -> tuple[DataSplit, DataSplit]:
    """Hold out a share of the training rows."""
    part = train.rows
    try:
        kept, held = hold_out(part, fraction, seed, stratify)
    except ValueError as error:
        raise ValueError(f"{train.origin}: no {name} rows can be held out: {error}") from error
    if fraction and not len(held.x):
        raise ValueError(
            f"{train.origin}: {len(part.x)} rows are too few to split off {name} rows; give those in a file"
        )
    how = f"{100 * fraction:.3g} % of {train.how}"
    if part.times is not None:
        held_how, kept_how = f"the last {how}", f"{train.how.removesuffix(EARLIER)}{EARLIER}"
    else:
        whole = ", whole groups" if part.groups is not None else ""
        held_how, kept_how = f"{how}{whole}, seed {seed}", train.how
    return DataSplit(kept, train.origin, kept_how if fraction else train.how), DataSplit(held, train.origin, held_how)


def _unused(name: str, portion: Portion | None) -> Iterator[str]:
    if portion is not None:
        yield f"The {name} part of the data ({portion.origin}) is not used, since a share of the training rows is."


def _refuse_absent(divided: SplitData) -> None:
    """Refuse columns to leave out that no part has, such as misspelt ones."""
    parts = [split.rows.absent for split in divided.parts.values()]
    if absent := [name for name in parts[0] if all(name in other for other in parts[1:])]:
        there = divided.train.rows.features
        raise ValueError(
            f"{divided.train.origin}: no column {listed(absent)} to ignore"
            + (f"; its inputs are {listed(there)}" if there else "")
        )


def _refuse_shared_groups(divided: SplitData) -> None:
    """Refuse a group of which there are rows in two parts."""
    seen: dict[str, str] = {}
    for name, split in divided.parts.items():
        for group in () if split.rows.groups is None else np.unique(split.rows.groups).tolist():
            if group in seen:
                raise ValueError(
                    f"{split.origin}: the group {group!r} has rows in the {seen[group]} part and in the {name} part; "
                    "take parts without common groups, or leave out group="
                )
            seen[group] = name
