"""Search for the smallest set of size attributes that must change for a smaller model to be right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torchlasso.compaction.candidates import Assignment, Candidate, Kind, Place

MOST_TRIALS = 64
MOST_TOGETHER = 4  # kinds of attributes that are changed together in one trial


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial run.

    Attributes:
        error: the difference from the expected outputs, or the error raised; an empty string if the run was right.
        path: the module that raised the error; None if none was raised.
        reached: the number of operations until the run ended.
    """

    error: str = ""
    path: str | None = None
    reached: int = 0


Chosen = dict[Kind, int]  # the index of the new value of each kind; other kinds keep their values


class Search:
    """A search for the smallest set of kinds that must change; without any one of them, the model would be wrong.

    The search starts without a change. Where a run fails, it tries the kinds that are read there: one at a time, then
    two or more together. It continues from the changes with which the run gets further.

    Attributes:
        found: the new values; None if the search failed.
        furthest: the outcome that got furthest among those with an error.
        failed: the module that raised an error in the run that got furthest; empty if none did.
    """

    def __init__(self, candidates: Callable[[], list[Candidate]], attempt: Callable[[Assignment], Outcome]) -> None:
        self._attempt, self._trials = attempt, MOST_TRIALS
        self._outcomes: dict[frozenset[tuple[Place, int]], Outcome] = {}  # of the trials so far
        self.furthest, self.failed, self._raised = Outcome(), "", -1
        self.found: Assignment | None = None
        first = attempt([])
        self._note(first)
        if not first.error:
            self.found = []
            return
        self._candidates = candidates()
        chosen = self._solve({}, first)
        if chosen is not None:
            self.found = self._assignment(self._minimal(chosen))

    def _note(self, outcome: Outcome) -> None:
        if outcome.path is not None and outcome.reached > self._raised:
            self.failed, self._raised = outcome.path, outcome.reached
        if outcome.error and (outcome.reached > self.furthest.reached or not self.furthest.error):
            self.furthest = outcome

    def _try(self, chosen: Chosen) -> Outcome:
        """Run the model with a choice; different choices may lead to the same sizes, which run once."""
        assignment = self._assignment(chosen)
        sizes = frozenset(assignment)
        if sizes not in self._outcomes:
            self._trials -= 1
            self._outcomes[sizes] = self._attempt(assignment)
            self._note(self._outcomes[sizes])
        return self._outcomes[sizes]

    def _solve(self, chosen: Chosen, outcome: Outcome) -> Chosen | None:
        """Return a choice that extends this one and is right; None if there is none."""
        for more in self._additions(chosen, outcome.path):
            if self._trials <= 0:
                break
            tried = chosen | more
            after = self._try(tried)
            if not after.error:
                return tried
            if after.reached > outcome.reached and (found := self._solve(tried, after)) is not None:
                return found
        return None

    def _additions(self, chosen: Chosen, path: str | None) -> Iterator[Chosen]:
        """Yield possible additions, the smallest first, and the kinds that the failed module reads before others."""
        values: dict[Kind, int] = {}
        near: dict[Kind, None] = {}
        for candidate in self._candidates:
            if candidate.kind not in chosen:
                values[candidate.kind] = max(values.get(candidate.kind, 0), len(candidate.values))
                if path is None or path in candidate.read:
                    near[candidate.kind] = None
        sets = [some for count in range(1, MOST_TOGETHER + 1) for some in itertools.combinations(near, count)]
        sets += [(kind,) for kind in values if kind not in near]
        for some in sets:
            for which in itertools.product(*(range(values[kind]) for kind in some)):
                yield dict(zip(some, which, strict=True))

    def _minimal(self, chosen: Chosen) -> Chosen:
        """Drop every kind without which the model is right as well."""
        for kind in list(chosen) if len(chosen) > 1 else ():
            less = {other: which for other, which in chosen.items() if other != kind}
            if not self._try(less).error:
                chosen = less
        return chosen

    def _assignment(self, chosen: Chosen) -> Assignment:
        changed = [candidate for candidate in self._candidates if candidate.kind in chosen]
        return [(each.place, each.values[min(chosen[each.kind], len(each.values) - 1)]) for each in changed]
