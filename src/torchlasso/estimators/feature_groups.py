"""Groups of features, named by their columns."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch

from torchlasso._core.arguments import shown
from torchlasso.estimators.input_groups import InputGroups


@dataclass(frozen=True)
class FeatureGroups:
    """A partition of the features of a table: groups that the user named, and single features.

    Attributes:
        members: the columns of each group.
        named: the columns of the groups that the user named, by name.
        kept: the columns that are not penalised.
        features: the number of columns.
    """

    members: tuple[tuple[int, ...], ...]
    named: Mapping[str, tuple[int, ...]]
    kept: frozenset[int]
    features: int

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: kept results are found by the pickle, whatever was computed from them before."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property  # a table may have 100,000 of them, and a search for λ reads them at each step
    def numbers(self) -> np.ndarray[Any, Any]:
        """The number of the group of each feature."""
        found = np.empty(self.features, dtype=np.int64)
        sizes = np.fromiter(map(len, self.members), dtype=np.int64, count=len(self.members))
        columns = np.fromiter(chain.from_iterable(self.members), dtype=np.int64, count=self.features)
        found[columns] = np.repeat(np.arange(len(sizes)), sizes)
        return found

    @cached_property
    def is_kept(self) -> np.ndarray[Any, Any]:
        """A mask of the groups that are not penalised."""
        return np.array([group[0] in self.kept for group in self.members])

    @cached_property
    def strengths(self) -> np.ndarray[Any, Any]:
        """The factor on λ of each group, the root of its number of features; 0 for those that are not penalised."""
        return np.sqrt([0.0 if group[0] in self.kept else len(group) for group in self.members])

    def count(self, live: np.ndarray[Any, Any]) -> int:
        """Return the number of groups of which a feature is live, given by a mask of the features."""
        return len(np.unique(self.numbers[live]))

    def only(self, columns: np.ndarray[Any, Any]) -> FeatureGroups:
        """Return the groups of some columns, given by their rising numbers: whole groups only."""
        new = {int(column): number for number, column in enumerate(columns)}
        members = tuple(tuple(new[i] for i in group) for group in self.members if group[0] in new)
        named = {name: tuple(new[i] for i in group) for name, group in self.named.items() if group[0] in new}
        return FeatureGroups(members, named, frozenset(new[i] for i in self.kept if i in new), len(new))

    def for_linear(self, l1_ratio: float, *, positive: bool = False) -> InputGroups:
        """Return the groups for a linear model, with the shares of the elastic net.

        Raises:
            ValueError: weights are to be at least 0, and a group has several features.
        """
        strengths = torch.from_numpy(self.strengths)
        if positive and len(self.members) < self.features:
            raise ValueError("positive=True is for single features, and feature_groups has groups of several")
        mask = torch.ones(len(strengths), dtype=torch.bool) if positive else None
        return InputGroups(torch.from_numpy(self.numbers), l1_ratio * strengths, (1 - l1_ratio) * strengths, mask)


def groups_of_features(groups: Any, keep: Any, features: int, names: Sequence[str] | None) -> FeatureGroups:
    """Return the groups of features.

    Args:
        groups: None; or lists of columns; or a mapping from names to lists of columns or to a pattern of their names,
            such as ``{"colour": "cat__colour_*"}``. A column is a number, or a name if the columns have names.
        keep: the columns, names of groups or patterns that are not penalised.
        features: the number of columns.
        names: their names, if they have any.

    Raises:
        ValueError: a column does not exist, or is in two groups, or a group is kept in part.
        TypeError: the groups are neither lists nor a mapping.
    """
    if (groups is not None and not isinstance(groups, Mapping | Sequence)) or isinstance(groups, str):
        raise TypeError(f"groups must be lists of columns, or a mapping from names to them; got {shown(groups)}")
    pairs = groups.items() if isinstance(groups, Mapping) else enumerate(groups or ())
    named = {str(name): _columns(columns, features, names, f"group {name}") for name, columns in pairs}
    seen = set[int]()
    for name, columns in named.items():
        if twice := seen.intersection(columns):
            raise ValueError(f"groups must not overlap; column {_shown(min(twice), names)} of group {name} is in two")
        seen.update(columns)
    kept = set[int]()
    for each in [keep] if isinstance(keep, str | int) else keep:
        kept.update(named[each] if each in named else _columns([each], features, names, "keep"))
    for name, columns in named.items():
        if kept.intersection(columns) and not kept.issuperset(columns):
            raise ValueError(f"keep has a part of group {name}; keep all of it, or nothing")
    single = [(column,) for column in range(features) if column not in seen]
    return FeatureGroups(tuple(sorted([*named.values(), *single])), named, frozenset(kept), features)


def _columns(columns: Any, features: int, names: Sequence[str] | None, where: str) -> tuple[int, ...]:
    """Return the numbers of columns, in order."""
    found = set[int]()
    for each in [columns] if isinstance(columns, str) else columns:
        if isinstance(each, str):
            matching = [i for i, name in enumerate(() if names is None else names) if fnmatch.fnmatchcase(name, each)]
            if not matching:
                known = "the columns have no names" if names is None else f"there are {', '.join(names[:6])}, …"
                raise ValueError(f"{where} has {each!r}, which no column is called: {known}")
            found.update(matching)
        elif isinstance(each, int | np.integer) and 0 <= each < features:
            found.add(int(each))
        else:
            raise ValueError(f"{where} has {each!r}, which is no column: there are {features}, from 0 on")
    if not found:
        raise ValueError(f"{where} has no columns")
    return tuple(sorted(found))


def _shown(column: int, names: Sequence[str] | None) -> str:
    return str(column) if names is None else repr(names[column])
