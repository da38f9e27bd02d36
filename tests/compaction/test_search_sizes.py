"""The search for sizes runs no assignment twice."""

from __future__ import annotations

from torch import nn

from torchlasso.compaction.candidates import Assignment, Candidate, Kind
from torchlasso.compaction.search_sizes import Outcome, Search


def test_choices_that_lead_to_the_same_sizes_run_once():
    heads: Kind = (nn.Linear, ("heads",), False)
    candidates = [
        Candidate(("a", ("heads",)), heads, (3,), frozenset({"a"})),
        Candidate(("b", ("heads",)), heads, (3,), frozenset({"b"})),
        Candidate(("a", ("width",)), (nn.Linear, ("width",), False), (5, 6), frozenset({"a"})),
    ]
    runs: list[frozenset[object]] = []

    def attempt(assignment: Assignment) -> Outcome:
        runs.append(frozenset(assignment))
        values = dict(assignment)
        if values.get(("a", ("width",))) != 6:
            return Outcome("wrong", "a", len(values))
        return Outcome("" if values.get(("b", ("heads",))) == 3 else "wrong", "b", 1)

    found = Search(lambda: candidates, attempt).found
    assert found is not None
    assert dict(found) == {("a", ("heads",)): 3, ("b", ("heads",)): 3, ("a", ("width",)): 6}
    assert len(runs) == len(set(runs))
