"""The rows of a table for a selection: scaled columns, without those that are constant or copies of others."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from torchlasso.data import Part
from torchlasso.data.card import DataCard
from torchlasso.data.describing import targets_in_words
from torchlasso.data.labels import REGRESSION
from torchlasso.data.loading import load_described, selected
from torchlasso.estimators.events import events_and_times
from torchlasso.estimators.points import Numbers
from torchlasso.runs.declared import with_flags
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.tasks import CLASSES, NUMBERS, SURVIVAL, Task

ALIKE = 6  # decimals of a scaled column in which copies agree; the readers keep about seven digits


@dataclass(frozen=True)
class Candidates:
    """The columns among which features are selected, and the targets of their rows.

    Attributes:
        x: scaled to mean 0 and deviation 1 by the weights, (n, p).
        y: classes as numbers or text, (n,); or decimal numbers scaled to mean 0 and deviation 1, (n,); or events and
            times, (n, 2).
        task: the kind of these targets.
        groups: the group of each row, (n,), or None.
        weights: the weight of each row, (n,), above 0 and with the mean 1; None if all are equal.
        names: the names of the columns.
        constant: the names of columns that have one value only.
        copies: the names of columns that are a copy of another one, or of its negative, with its name.
        card: what was read.
    """

    x: Numbers
    y: Numbers
    task: Task
    groups: Numbers | None
    weights: Numbers | None
    names: tuple[str, ...]
    constant: tuple[str, ...]
    copies: dict[str, str]
    card: DataCard

    def own(self, rows: Numbers) -> Numbers | None:
        """Return the weights of some rows, with the mean 1 among them; None if all are equal."""
        return None if self.weights is None else self.weights[rows] / self.weights[rows].mean()

    def groups_of(self, rows: Numbers) -> Numbers | None:
        """Return the groups of some rows, if they have any."""
        return None if self.groups is None else self.groups[rows]

    @property
    def columns(self) -> int:
        """The number of all columns of the table."""
        return len(self.names) + len(self.constant) + len(self.copies)

    def folds(self, wanted: int, seed: int) -> list[tuple[Numbers, Numbers]]:
        """Divide the rows into pairs of training and test rows: whole groups, with all classes in each.

        Raises:
            ValueError: there are fewer than two rows of a class, or fewer than two groups.
        """
        count, kinds = self._most_folds(wanted), self.task.kinds(self.y)
        splitter: Any = StratifiedKFold if self.groups is None else StratifiedGroupKFold
        if len(np.unique(kinds)) == 1:
            splitter = KFold if self.groups is None else GroupKFold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of fewer rows of a kind than folds that can do without
            return list(splitter(count, shuffle=True, random_state=seed).split(self.x, kinds, self.groups))

    def _most_folds(self, wanted: int) -> int:
        """Return the number of folds: each needs a row, or a group, of every class, or with an event."""
        units = np.arange(len(self.y)) if self.groups is None else self.groups
        kinds = self.task.kinds(self.y)
        sizes = {kind: len(np.unique(units[kinds == kind])) for kind in self.task.needed(kinds)}
        fewest = min(sizes, key=lambda kind: sizes[kind])
        if sizes[fewest] < 2:
            what = "row" if self.groups is None else "group"
            of = self.task.needing(fewest)
            may_be = "; if the labels are numbers to predict, give --task regression" * (self.y.dtype.kind in "iu")
            raise ValueError(f"cross-validation needs two {what}s{of} at least; there is {sizes[fewest]}{may_be}")
        return min(wanted, sizes[fewest])


def read_candidates(options: SelectOptions) -> Candidates:
    """Read the table of the options.

    Raises:
        ValueError: the table cannot be used, has one class only, or fewer features than are wanted.
    """
    found = _labelled(options) if options.time is None else _survival(options, options.time, options.event)
    part, y, task, card = found
    weights, rows = _unequal(part.weights), part.tensor
    if rows.dim() != 2:
        raise ValueError(f"{options.data}: its rows have the shape {tuple(rows.shape[1:])}; select needs a table")
    names = part.features or tuple(f"input {i}" for i in range(rows.shape[1]))
    x = rows.numpy().astype(np.float64)
    spreads = np.ptp(x, axis=0)
    live = spreads > 0
    constant = tuple(name for name, is_live in zip(names, live, strict=True) if not is_live)
    kept = np.flatnonzero(live)
    if not len(kept):
        raise ValueError(f"{options.data}: all {len(names)} columns are constant; there is nothing to select")
    x = x[:, kept]
    x -= np.average(x, axis=0, weights=weights)
    x /= np.sqrt(np.average(x**2, axis=0, weights=weights))
    own, copies = _without_copies(x, [names[i] for i in kept])
    kept, x = kept[own], x[:, own]
    if options.features is not None and options.features > len(kept):
        gone = f" that are neither constant nor copies, of {len(names):,}" if len(kept) < len(names) else ""
        raise ValueError(
            f"--features {options.features}: the table has {len(kept):,} feature{'' if len(kept) == 1 else 's'}{gone}"
        )
    return Candidates(x, y, task, part.groups, weights, tuple(names[i] for i in kept), constant, copies, card)


def _labelled(options: SelectOptions) -> tuple[Part, Numbers, Task, DataCard]:
    """Read the rows with their labels."""
    part, card = _read(options, options.label, task=options.task)
    y = np.asarray(part.y)
    if y.ndim > 1 and y.shape[1] > 1:
        raise ValueError(f"{options.data}: {y.shape[1]} targets for each row; select takes one")
    y = y.reshape(-1)
    if y.dtype.kind != "f":
        if len(found := np.unique(y)) < 2:
            raise ValueError(f"{options.data}: all labels are {str(found[0])!r}; at least 2 classes are needed")
        return part, y, CLASSES, card
    if np.ptp(y) == 0:
        raise ValueError(f"{options.data}: all labels are {y[0]:g}; they say nothing about any feature")
    weights = _unequal(part.weights)
    y = y - np.average(y, weights=weights)
    # λ and networks need a scale; R² has none
    return part, y / np.sqrt(np.average(y**2, weights=weights)), NUMBERS, card


def _read(options: SelectOptions, label: str | None, *ignored: str, task: str | None) -> tuple[Part, DataCard]:
    """Read the rows, and describe them."""
    columns = selected(
        label=label,
        ignore=(*options.ignore, *ignored),
        group=options.group,
        categories=options.categories,
        task=task,
    )
    part, card = load_described(options.data, replace(columns, weight=options.weight))
    names = [each.name for each in fields(options)]
    left_out = {name: why.partition("; text=")[0] for name, why in card.left_out.items()}  # here, nothing reads texts
    return part, replace(card, left_out=left_out, notes=tuple(with_flags(note, names) for note in card.notes))


def _unequal(weights: Numbers | None) -> Numbers | None:
    """Return weights with the mean 1; None if all are equal."""
    return None if weights is None or np.ptp(weights) == 0 else weights / weights.mean()


def _survival(options: SelectOptions, time: str, event: str | None) -> tuple[Part, Numbers, Task, DataCard]:
    """Read the rows with their events and times: as labels, one after the other."""
    (of_events, _), (part, card) = _read(options, event, task=None), _read(options, time, str(event), task=REGRESSION)
    columns = ((event, of_events.y, "0 or 1, an event"), (time, part.y, "numbers, the times"))
    for name, values, wanted in columns:
        if values is None or values.dtype.kind not in "biuf" or values.ndim > 1:
            example = "" if values is None else f"; got {str(values.reshape(-1)[0])!r}"
            raise ValueError(f"{options.data}: column {name!r} must hold {wanted}{example}")
    try:
        events, times = events_and_times(np.stack([np.asarray(values, dtype=float) for _, values, _ in columns], 1))
    except ValueError as error:
        raise ValueError(f"{options.data}: columns {event!r} and {time!r}: {error}") from error
    if not events.any():
        raise ValueError(f"{options.data}: column {event!r} is 0 everywhere; some rows need an event")
    card = replace(card, targets=targets_in_words((), np.stack([times, events], axis=1), is_survival=True))
    return part, np.stack([events, times], axis=1), SURVIVAL, card


def _without_copies(x: Numbers, names: list[str]) -> tuple[list[int], dict[str, str]]:
    """Return the columns that are not copies of an earlier one, and the names of the copies."""
    signs = np.where(x[0] < 0, -1.0, 1.0)
    first: dict[bytes, int] = {}
    own, copies = list[int](), dict[str, str]()
    for i in range(x.shape[1]):
        key = (np.round(signs[i] * x[:, i], ALIKE) + 0.0).tobytes()  # + 0.0: no −0
        if key in first:
            copies[names[i]] = names[first[key]]
        else:
            first[key] = i
            own.append(i)
    return own, copies
