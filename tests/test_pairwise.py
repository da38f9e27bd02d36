"""The choice of combinations that the tests run over: nothing that should meet is left out."""

import itertools

import pytest

from tests.support.pairwise import cover

AXES = [list("abcdefg"), [1, 2, 3], [True, False], ["x", "y", "z"]]


def unlike(letter: str, number: int, flag: bool, other: str) -> bool:
    return not (letter == "a" and number == 2) and not (flag and other == "z")


@pytest.mark.parametrize("strength", [1, 2, 3])
@pytest.mark.parametrize("where", [lambda *_: True, unlike], ids=["all", "some"])
def test_every_group_of_values_that_may_meet_does(strength, where):
    chosen = cover(AXES, strength, where)
    assert all(where(*one) for one in chosen)
    allowed = [one for one in itertools.product(*AXES) if where(*one)]
    for columns in itertools.combinations(range(len(AXES)), strength):
        assert {tuple(one[c] for c in columns) for one in chosen} == {tuple(one[c] for c in columns) for one in allowed}
    assert len(chosen) <= {1: 8, 2: 28, 3: 80}[strength] < len(allowed)
