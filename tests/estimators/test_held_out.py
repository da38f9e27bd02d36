"""The part of the rows that estimators hold out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from torchlasso.estimators.held_out import held_out_part


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_every_kind_of_groups_has_its_share_of_a_part(share: float) -> None:
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(80), rng.integers(1, 9, 80)))
    kinds = np.array(["a", "b", "c", "d"])[groups % 4]
    training, held_out = held_out_part(kinds, groups, len(groups), share, seed=0)
    assert sorted([*training, *held_out]) == list(range(len(groups)))
    assert not set(groups[training]) & set(groups[held_out])
    counts = [len(np.unique(groups[held_out][kinds[held_out] == kind])) for kind in "abcd"]
    assert counts == [20 * share] * 4


def test_a_group_of_several_kinds_counts_as_its_most_frequent_one() -> None:
    groups = np.repeat(np.arange(8), 5)
    kinds = np.where(np.arange(40) % 5 == 0, 1 - groups % 2, groups % 2)  # one of five rows is of the other kind
    _, held_out = held_out_part(kinds, groups, 40, 0.25, seed=1)
    assert sorted(np.unique(groups[held_out]) % 2) == [0, 1]


def test_too_few_groups_of_a_kind_are_divided_without_their_kinds() -> None:
    groups = np.repeat(np.arange(6), 3)
    for kinds in (groups, groups == 0):  # a group of each kind; one group of the first kind
        training, held_out = held_out_part(kinds, groups, 18, 0.3, seed=0)
        assert len(np.unique(groups[held_out])) == 2
        assert len(np.unique(groups[training])) == 4


def test_rows_without_groups_are_divided_as_by_scikit_learn() -> None:
    kinds = np.arange(40) % 2
    for own, splitter in ((None, ShuffleSplit), (kinds, StratifiedShuffleSplit)):
        wanted = next(splitter(1, test_size=0.2, random_state=3).split(np.zeros((40, 1)), own))
        for one, other in zip(held_out_part(own, None, 40, 0.2, seed=3), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
