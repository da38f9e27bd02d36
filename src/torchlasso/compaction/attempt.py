"""A copy of a model with a removal applied to it, and the sizes in attributes with which it is right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from torchlasso._core.kept import found_at
from torchlasso._core.running import Running
from torchlasso._core.text import first_line
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.candidates import Assignment, Candidate, Reads, assign_, find_candidates
from torchlasso.compaction.layer_sizes import channel_counts, derived_sizes
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.search_sizes import Outcome, Search
from torchlasso.compaction.verify import Reference
from torchlasso.graph import UnitMap
from torchlasso.graph.tracing import unexportable

LONGEST = 256  # the largest size that is tried in addition to those of the example


class Attempt:
    """A smaller copy of a model, with the sizes in attributes for which it computes the same outputs.

    Attributes:
        removal, small: the removal, and the copy to which it is applied.
        found: the new sizes; None if the search failed.
        failed: the path of the module that raised an error in the trial that got furthest.
        error: the error of that trial.
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

        def candidates() -> list[Candidate]:
            structure, model = units.structure, reference.model
            derived = derived_sizes(model, channel_counts(structure, Removal({})), reference.precision)
            return find_candidates(model, structure, removal, reads(), derived)

        self._candidates = candidates
        search = Search(candidates, self._attempt)
        self.found: Assignment | None = search.found
        self.failed, self.error = search.failed, search.furthest.error
        if self.found:
            assign_(self.small, self.found)

    def _attempt(self, assignment: Assignment) -> Outcome:
        """Run the copy with these sizes in its attributes, on the example and on inputs of other sizes."""
        undo = assign_(self.small, assignment)
        try:
            return self._outcome(assignment)
        finally:
            undo()

    def _outcome(self, assignment: Assignment) -> Outcome:
        model, calls, running = self.small, _Calls(), Running()
        old = [found_at(self._reference.model.get_submodule(path), keys) for (path, keys), _ in assignment]
        longest = max((number for number in old if number <= LONGEST), default=0)
        for number, situation in enumerate(self._reference.evaluated(longest)):  # a size may also be a limit
            try:
                with warnings.catch_warnings(), running.watching(model), calls:
                    warnings.simplefilter("ignore")  # trials with wrong sizes may cause warnings
                    given = self._reference.given(model, situation)
            except Exception as error:  # of any kind: it is the model's own code
                return Outcome(first_line(error), running.path, calls.count)
            if self._reference.differs(situation, given) > self._reference.precision.tolerance:
                return Outcome(f"the outputs differ{' at another size' if number else ''}", None, calls.count)
        return Outcome(self.export_error() if self._traced else "", None, calls.count)

    @property
    def keeps_candidates(self) -> bool:
        """True if units are removed, and a candidate keeps its value although it equals a size that changes."""
        changed = {place for place, _ in self.found or ()}
        removed = any(bool(gone.any()) for gone in self.removal.gone.values())
        return removed and any(candidate.place not in changed for candidate in self._candidates())

    def export_error(self) -> str:
        """Return the reason why the copy cannot be exported, although the model can; an empty string if it can."""
        return unexportable(self.small, self._reference.example_inputs, self._reference.precision)


class _Calls(TorchFunctionMode):
    """A counter of the calls of torch's functions: the further a run gets, the more calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
