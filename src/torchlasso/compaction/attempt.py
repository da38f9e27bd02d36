"""A copy of a model with a removal applied to it, and the numbers for its modules with which it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from torchlasso._core.kept import found_at
from torchlasso._core.running import Running
from torchlasso._core.text import first_line
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.attributes import own_numbers, uses_of
from torchlasso.compaction.candidates import Assignment, Choice, Reads, assign_, candidates
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.search_sizes import Outcome, Search
from torchlasso.compaction.verify import Reference
from torchlasso.graph import UnitMap
from torchlasso.graph.tracing import unexportable

LONGEST = 256  # of what is tried beside the sizes of the example


class Attempt:
    """A copy of a model that is cut, and numbers for its modules such that it runs and gives what it gave.

    Attributes:
        removal, small: what goes, and the model without it.
        found: the numbers; None if there are none.
        failed: the path of the module that raised an error, where the model came furthest.
        error: what was wrong where it came furthest.
    """

    def __init__(
        self,
        units: UnitMap,
        removal: Removal,
        reference: Reference,
        reads: Callable[[], Reads],
        traced: bool,
    ) -> None:
        self.removal, self.small = removal, reference.precision.copied(reference.model)
        Compaction(units, removal, []).try_(self.small, reference.precision)
        self._reference, self._traced = reference, traced

        def choices() -> list[Choice]:
            structure, model = units.structure, reference.model
            own = own_numbers(model, uses_of(structure, Removal({})), reference.precision)
            return candidates(model, structure, removal, reads(), own)

        self._choices = choices
        search = Search(choices, self._attempt)
        self.found: Assignment | None = search.found
        self.failed, self.error = search.failed, search.furthest.error
        if self.found:
            assign_(self.small, self.found)

    def _attempt(self, assignment: Assignment) -> Outcome:
        """Run the model with these numbers on the example and at other sizes."""
        take_back = assign_(self.small, assignment)
        try:
            return self._outcome(assignment)
        finally:
            take_back()

    def _outcome(self, assignment: Assignment) -> Outcome:
        model, calls, running = self.small, _Calls(), Running()
        old = [found_at(self._reference.model.get_submodule(path), keys) for (path, keys), _ in assignment]
        longest = max((number for number in old if number <= LONGEST), default=0)
        for number, situation in enumerate(self._reference.evaluated(longest)):  # a number may be a limit, too
            try:
                with warnings.catch_warnings(), running.watching(model), calls:
                    warnings.simplefilter("ignore")  # of sizes that do not fit, which is what is tried here
                    given = self._reference.given(model, situation)
            except Exception as error:  # of any kind: it is the model's own code
                return Outcome(first_line(error), running.path, calls.count)
            if self._reference.differs(situation, given) > self._reference.precision.tolerance:
                return Outcome(f"the outputs differ{' at another size' if number else ''}", None, calls.count)
        return Outcome(self.untraceable() if self._traced else "", None, calls.count)

    @property
    def unsure(self) -> bool:
        """Return whether units go while a number that is read stays, though it equals a size that changes."""
        changed = {place for place, _ in self.found or ()}
        going = any(bool(gone.any()) for gone in self.removal.gone.values())
        return going and any(choice.place not in changed for choice in self._choices())

    def untraceable(self) -> str:
        """Say why the smaller model cannot be exported, as the original can; an empty string if it can."""
        return unexportable(self.small, self._reference.example_inputs, self._reference.precision)


class _Calls(TorchFunctionMode):
    """Counts the calls of torch's functions: the further a run comes, the more there are."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
