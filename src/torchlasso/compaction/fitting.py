"""Search for the largest removal after which a model still runs and computes the same outputs."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from torchlasso._core.arguments import check_inputs, check_model, check_whole
from torchlasso._core.kept import found_at
from torchlasso._core.running import Inputs, Running
from torchlasso._core.text import first_line
from torchlasso.compaction.attributes import module_of, own_numbers, uses_of
from torchlasso.compaction.candidates import Assignment, Choice, Reads, assign_, candidates
from torchlasso.compaction.cutting import Cut
from torchlasso.compaction.exercised import left_out, unread
from torchlasso.compaction.folding import find_removal
from torchlasso.compaction.reads import numbers_read
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.report import Checked
from torchlasso.compaction.searching import Outcome, Search
from torchlasso.compaction.verify import Reference
from torchlasso.graph import UnitMap, find_units
from torchlasso.graph.axes import Axis, axes_of
from torchlasso.graph.operators import all_dims, rule_of
from torchlasso.graph.rules.pointwise import Make
from torchlasso.graph.rules.shapes import Expand, Repeat, Reshape, Slice, Split
from torchlasso.graph.tracing import unexportable

LONGEST = 256  # of what is tried beside the sizes of the example
TOLD = (Reshape, Split, Expand, Repeat, Slice, Make)  # operators that are told sizes


def find_cut(model: nn.Module, example_inputs: Inputs, multiple_of: int = 1, units: UnitMap | None = None) -> Cut:
    """Find the largest removal that a copy of the model bears. ``units``: of the model as it is, if they are known."""
    check_model("model", model)
    check_inputs("example_inputs", example_inputs)
    check_whole("multiple_of", multiple_of)
    units = units or find_units(model, example_inputs)
    precision = units.structure.trace.precision
    original = precision.copied(model)
    reference = Reference(original, example_inputs, precision)
    reads = functools.cache(lambda: numbers_read(original, example_inputs, precision))

    def attempt(stays: dict[Axis, str], traced: bool = False) -> Fitting:
        return Fitting(units, find_removal(units, multiple_of, stays), reference, reads, traced)

    def wrong(fitting: Fitting) -> str:
        if fitting.found is None:
            return f"{type(model).__name__} could not run without it ({fitting.error})"
        for situation, error in reference.disagreements(fitting.small):
            if situation.training:  # where other operators run than were read
                return f"it is needed in training ({error})"
            return f"{type(model).__name__} could not run without it ({error})"
        return ""

    pinned: dict[Axis, str] = {}
    fitting = attempt(pinned)
    while fitting.found is None:
        more = _pins(units, original, fitting, pinned, attempt)
        if not more.keys() - pinned.keys():  # the module in which it failed has nothing to do with it
            pinned, fitting = {}, attempt({})
            break
        pinned = more
        fitting = attempt(pinned)
    if pinned:  # what had to stay for one module may be enough for another, in which it failed before
        needed = _fewest(list(pinned), lambda some: attempt({axis: pinned[axis] for axis in some}).found is not None, 8)
        pinned = {axis: pinned[axis] for axis in needed}
        fitting = attempt(pinned)
    reason = wrong(fitting)
    if reason:
        axes = [axis for axis, gone in fitting.removal.gone.items() if gone.any()]
        needed = _fewest(axes, lambda some: not wrong(attempt(pinned | dict.fromkeys(some, reason))))
        pinned |= dict.fromkeys(needed, reason)
        fitting = attempt(pinned)
        reason = wrong(fitting)
    if reason:
        pinned = {family.axis: reason for family in units.removable}
        fitting = attempt(pinned)
        reason = wrong(fitting)
    if not reason and fitting.unsure and fitting.untraceable():  # a number that another path through the code needs
        again = attempt(pinned, traced=True)
        fitting = fitting if wrong(again) else again
    if reason or fitting.found is None:
        raise ValueError(
            f"{type(model).__name__} cannot be compacted: a copy of it does not give the same outputs ({reason})"
        )
    checked = Checked(
        left_out(model, example_inputs),
        unread(model, units.structure.trace),
        len(reference.evaluated) > 1,
        reference.why_not_trained,
        reference.random,
        units.structure.trace.single,
    )
    return Cut(units, fitting.removal, fitting.found, checked)


def _fewest(of: list[Axis], enough: Callable[[list[Axis]], bool], trials: int = 256) -> list[Axis]:
    """Few of a list that are enough, where all are and none is not.

    None of them can be left out alone, if trials do not run out.
    """
    needed, size = of, len(of) // 2
    while size and trials > 0:
        for start in range(0, len(of), size):
            without = [axis for axis in needed if axis not in of[start : start + size]]
            if trials > 0 and len(without) < len(needed):
                trials -= 1
                needed = without if enough(without) else needed
        size //= 2
    return needed


class Fitting:
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
        Cut(units, removal, []).apply_(self.small, reference.precision)
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
        others = self._reference.beyond(longest) if longest else []  # a number may be a limit, too
        for number, situation in enumerate((*self._reference.evaluated, *others)):
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


def _pins(
    units: UnitMap,
    model: nn.Module,
    fitting: Fitting,
    pinned: dict[Axis, str],
    attempt: Callable[[dict[Axis, str]], Fitting],
) -> dict[Axis, str]:
    """Return the axes to keep so that the modules of the class that failed know their sizes: as few as possible."""
    path, roles = _roles(units, model, fitting.failed)
    cls = type(model.get_submodule(path))
    reason = f"{cls.__name__} could not run without it ({fitting.error})"

    def pins(which: Iterable[int]) -> dict[Axis, str]:
        return pinned | {axis: reason for role in which for axis in roles[role]}

    needed = list(range(len(roles)))
    for role in range(len(roles)):
        others = [other for other in needed if other != role]
        tried = attempt(pins(others))
        if tried.found is not None or type(model.get_submodule(_roles(units, model, tried.failed)[0])) is not cls:
            needed = others
    return pins(needed)


def _roles(units: UnitMap, model: nn.Module, path: str) -> tuple[str, list[list[Axis]]]:
    """Axes that operators are told sizes of, in the module of a path or one around it, and in others of its class.

    Returns:
        The path of the module, and its axes in the order in which they occur: for each also those that occur at the
        same place in other modules of the class. Axes of which all units stay anyway are not among them.
    """
    removable = {family.axis for family in units.removable}
    told: dict[str, dict[Axis, None]] = {}
    for node in units.structure.trace.nodes:
        if node.op == "call_function" and isinstance(rule_of(node.target), TOLD):
            for value in (node, *node.all_input_nodes):
                axes = (axis for dim in all_dims(units.structure.shapes.get(value)) for axis in axes_of(dim))
                told.setdefault(module_of(node), {}).update(dict.fromkeys(axis for axis in axes if axis in removable))
    while path and not told.get(path):
        path = path.rpartition(".")[0]
    if not told.get(path):
        return path, []
    cls = type(model.get_submodule(path))
    alike = [list(axes) for other, axes in told.items() if type(model.get_submodule(other)) is cls]
    idle = {axis for axis, units_of in units.idle().items() if units_of.any()}
    columns = ([axis for axis in column if axis in idle] for column in itertools.zip_longest(*alike))
    return path, [column for column in columns if column]
