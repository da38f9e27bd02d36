"""The rows of a table for a selection: scaled columns, without those that are constant or copies of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from torchlasso.data import load_rows
from torchlasso.estimators.points import Numbers
from torchlasso.runs.selecting.options import SelectOptions

ALIKE = 6  # decimals of a scaled column in which copies agree; the readers keep about seven digits


@dataclass(frozen=True)
class Candidates:
    """The columns among which features are selected, and the targets of their rows.

    Attributes:
        x: scaled to mean 0 and deviation 1, (n, p).
        y: classes as numbers or text, or decimal numbers scaled to mean 0 and deviation 1, (n,).
        groups: the group of each row, (n,), or None.
        names: the names of the columns.
        constant: the names of columns that have one value only.
        copies: the names of columns that are a copy of another one, or of its negative, with its name.
    """

    x: Numbers
    y: Numbers
    groups: Numbers | None
    names: tuple[str, ...]
    constant: tuple[str, ...]
    copies: dict[str, str]

    @property
    def columns(self) -> int:
        """The number of all columns of the table."""
        return len(self.names) + len(self.constant) + len(self.copies)

    @property
    def is_classes(self) -> bool:
        """True if the targets are classes."""
        return bool(self.y.dtype.kind != "f")

    def folds(self, wanted: int, seed: int) -> list[tuple[Numbers, Numbers]]:
        """Divide the rows into pairs of training and test rows: whole groups, with all classes in each.

        Raises:
            ValueError: there are fewer than two rows of a class, or fewer than two groups.
        """
        count = self._most_folds(wanted)
        splitter: Any
        if self.groups is not None:
            splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed) if self.is_classes else None
            splitter = splitter or GroupKFold(count, shuffle=True, random_state=seed)
        else:
            splitter = (StratifiedKFold if self.is_classes else KFold)(count, shuffle=True, random_state=seed)
        return list(splitter.split(self.x, self.y, self.groups))

    def _most_folds(self, wanted: int) -> int:
        """Return the number of folds: each needs a row, or a group, of every class."""
        units = np.arange(len(self.y)) if self.groups is None else self.groups
        kinds = self.y if self.is_classes else np.zeros(len(self.y))
        sizes = {kind: len(np.unique(units[kinds == kind])) for kind in np.unique(kinds).tolist()}
        fewest = min(sizes, key=lambda kind: sizes[kind])
        if sizes[fewest] < 2:
            what = "row" if self.groups is None else "group"
            of = f" of the class {str(fewest)!r}" if self.is_classes else ""
            raise ValueError(f"cross-validation needs two {what}s{of} at least; there is {sizes[fewest]}")
        return min(wanted, sizes[fewest])


def read_candidates(options: SelectOptions) -> Candidates:
    """Read the table of the options.

    Raises:
        ValueError: the table cannot be used, has one class only, or fewer features than are wanted.
    """
    part = load_rows(options.data, label=options.label, ignore=options.ignore, group=options.group)
    rows = part.tensor
    if rows.dim() != 2:
        raise ValueError(f"{options.data}: its rows have the shape {tuple(rows.shape[1:])}; select needs a table")
    y = np.asarray(part.y)
    if y.ndim > 1 and y.shape[1] > 1:
        raise ValueError(f"{options.data}: {y.shape[1]} targets for each row; select takes one")
    y = y.reshape(-1)
    if y.dtype.kind != "f" and len(found := np.unique(y)) < 2:
        raise ValueError(f"{options.data}: all labels are {str(found[0])!r}; at least 2 classes are needed")
    if y.dtype.kind == "f" and np.ptp(y) == 0:
        raise ValueError(f"{options.data}: all labels are {y[0]:g}; they say nothing about any feature")
    if y.dtype.kind == "f":
        y = (y - y.mean()) / y.std()  # λ and networks need a scale; R² has none
    names = part.features or tuple(f"input {i}" for i in range(rows.shape[1]))
    x = rows.numpy().astype(np.float64)
    spreads = np.ptp(x, axis=0)
    live = spreads > 0
    constant = tuple(name for name, is_live in zip(names, live, strict=True) if not is_live)
    kept = np.flatnonzero(live)
    if not len(kept):
        raise ValueError(f"{options.data}: all {len(names)} columns are constant; there is nothing to select")
    x = x[:, kept]
    x -= x.mean(axis=0)
    x /= x.std(axis=0)
    own, copies = _without_copies(x, [names[i] for i in kept])
    kept, x = kept[own], x[:, own]
    if options.features is not None and options.features > len(kept):
        gone = f" that are neither constant nor copies, of {len(names):,}" if len(kept) < len(names) else ""
        raise ValueError(f"--features {options.features}: the table has {len(kept):,} features{gone}")
    return Candidates(x, y, part.groups, tuple(names[i] for i in kept), constant, copies)


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
