"""Search for the fewest numbers of a model's modules that have to change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torchlasso.compaction.candidates import Assignment, Choice, Kind

MOST_TRIALS = 64
MOST_TOGETHER = 4  # kinds of numbers that have to change at once for a model to come any further


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        error: in what it differs from what it should be; an empty string if in nothing.
        path: the module in which an error was raised; None if none was.
        reached: how far the run came.
    """

    error: str = ""
    path: str | None = None
    reached: int = 0


Way = dict[Kind, int]  # which of its values each kind takes; others stay what they are


class Search:
    """The fewest kinds of numbers that have to change for a model to be right; none of them can be left out.

    It starts without a change. Where the model fails, those kinds are tried that are read there, one by one, then two
    and more at once; with those that bring it further the search goes on.

    Attributes:
        found: the numbers; None if there are none.
        furthest: of the runs that were wrong, the one that came furthest.
        failed: of those that raised an error, the module where the one was that came furthest; empty if none did.
    """

    def __init__(self, choices: Callable[[], list[Choice]], attempt: Callable[[Assignment], Outcome]) -> None:
        self._attempt, self._trials = attempt, MOST_TRIALS
        self.furthest, self.failed, self._raised = Outcome(), "", -1
        self.found: Assignment | None = None
        first = attempt([])
        self._note(first)
        if not first.error:
            self.found = []
            return
        self._choices = choices()
        way = self._solve({}, first)
        if way is not None:
            self.found = self._assignment(self._without_excess(way))

    def _note(self, outcome: Outcome) -> None:
        if outcome.path is not None and outcome.reached > self._raised:
            self.failed, self._raised = outcome.path, outcome.reached
        if outcome.error and (outcome.reached > self.furthest.reached or not self.furthest.error):
            self.furthest = outcome

    def _try(self, way: Way) -> Outcome:
        self._trials -= 1
        outcome = self._attempt(self._assignment(way))
        self._note(outcome)
        return outcome

    def _solve(self, way: Way, outcome: Outcome) -> Way | None:
        """Return a way that contains this one and is right."""
        for more in self._additions(way, outcome.path):
            if self._trials <= 0:
                break
            tried = way | more
            after = self._try(tried)
            if not after.error:
                return tried
            if after.reached > outcome.reached and (found := self._solve(tried, after)) is not None:
                return found
        return None

    def _additions(self, way: Way, path: str | None) -> Iterator[Way]:
        """Yield what could be changed next, the fewest kinds first, and first those that are read in a module."""
        values: dict[Kind, int] = {}
        near: dict[Kind, None] = {}
        for choice in self._choices:
            if choice.kind not in way:
                values[choice.kind] = max(values.get(choice.kind, 0), len(choice.values))
                if path is None or path in choice.read:
                    near[choice.kind] = None
        sets = [some for count in range(1, MOST_TOGETHER + 1) for some in itertools.combinations(near, count)]
        sets += [(kind,) for kind in values if kind not in near]
        for some in sets:
            for which in itertools.product(*(range(values[kind]) for kind in some)):
                yield dict(zip(some, which, strict=True))

    def _without_excess(self, way: Way) -> Way:
        for kind in list(way) if len(way) > 1 else ():
            less = {other: which for other, which in way.items() if other != kind}
            if not self._try(less).error:
                way = less
        return way

    def _assignment(self, way: Way) -> Assignment:
        chosen = [choice for choice in self._choices if choice.kind in way]
        return [(each.place, each.values[min(way[each.kind], len(each.values) - 1)]) for each in chosen]
