"""The pipeline of compaction: plan, apply to a copy, search its sizes, verify; with fewer units until it is right."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from torch import nn

from torchlasso._core.arguments import check_inputs, check_model, check_whole
from torchlasso._core.memory import uncollected
from torchlasso._core.running import ExampleInputs
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.attempt import Attempt
from torchlasso.compaction.coverage import missing_arguments, unread_parameters
from torchlasso.compaction.layer_sizes import module_of
from torchlasso.compaction.multiples import measured_multiples
from torchlasso.compaction.plan import plan_removal
from torchlasso.compaction.reads import numbers_read
from torchlasso.compaction.report import Checked
from torchlasso.compaction.verify import Reference
from torchlasso.graph import UnitMap, find_units
from torchlasso.graph.axes import Axis, axes_of
from torchlasso.graph.operators import all_dims, rule_of
from torchlasso.graph.rules.pointwise import Make
from torchlasso.graph.rules.shapes import Expand, Repeat, Reshape, Slice, Split

TAKES_SIZES = (Reshape, Split, Expand, Repeat, Slice, Make)  # operators with sizes among their arguments
MOST_TRIALS = 8  # for keeping fewer units, if modules of several classes failed

Stays = dict[Axis, str]  # the axes whose units all stay, each with the reason


@uncollected()
def find_compaction(
    model: nn.Module,
    example_inputs: ExampleInputs,
    multiple_of: int | Literal["auto"] = 1,
    units: UnitMap | None = None,
) -> Compaction:
    """Find the largest removal after which a copy of the model computes the same outputs.

    Args:
        model: it is not changed.
        example_inputs: example inputs of the model.
        multiple_of: the number of units in each family stays a multiple of this; ``"auto"``: of what is measured.
        units: the units of the model with its present values, if they are known.

    Raises:
        ValueError: the model cannot be exported, or even a copy without a removal computes other outputs.
    """
    check_model("model", model)
    check_inputs("example_inputs", example_inputs)
    if multiple_of != "auto":
        check_whole("multiple_of", multiple_of)
    units = units or find_units(model, example_inputs)
    multiples = measured_multiples(units) if multiple_of == "auto" else multiple_of
    attempts = Attempts(model, example_inputs, multiples, units)
    stays, error = stays_for_outputs(attempts, stays_for_sizes(attempts))
    if error:
        raise ValueError(
            f"{type(model).__name__} cannot be compacted: a copy of it does not compute the same outputs ({error})"
        )
    attempt, reference, trace = exportable(attempts, stays), attempts.reference, attempts.units.structure.trace
    checked = Checked(
        missing_arguments(model, example_inputs),
        unread_parameters(model, trace),
        bool(reference.beyond(0)),
        reference.why_not_trained,
        reference.random,
        trace.single,
    )
    return Compaction(attempts.units, attempt.removal, attempt.found or [], checked)


class Attempts:
    """Attempts to remove units from a model, each on a copy of it.

    Attributes:
        model: the model in the precision of the comparison.
        units: its units.
        reference: the model's outputs, with which those of the copies are compared.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        multiple_of: int | Mapping[Axis, int],
        units: UnitMap,
    ) -> None:
        trace = units.structure.trace
        self.model, self.units, self._multiple_of = trace.precision.copied(model), units, multiple_of
        self.reference = Reference(self.model, example_inputs, trace.precision, trace.outputs)
        self._reads = functools.cache(lambda: numbers_read(self.model, example_inputs, trace.precision))
        self._last: tuple[object, Attempt] | None = None

    def __call__(self, stays: Stays, traced: bool = False) -> Attempt:
        """Plan the largest removal without these units, apply it to a copy, and search the copy's sizes.

        The last successful attempt is cached, since each search ends with it.
        """
        key = frozenset(stays.items()), traced
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        removal = plan_removal(self.units, self._multiple_of, stays)
        attempt = Attempt(self.units, removal, self.reference, self._reads, traced)
        if attempt.found is not None:
            self._last = key, attempt
        return attempt

    def error(self, attempt: Attempt) -> str:
        """Verify a copy in all situations, and return the first error; an empty string if there is none."""
        name = type(self.model).__name__
        if attempt.found is None:
            return f"{name} could not run without it ({attempt.error})"
        for situation, error in self.reference.disagreements(attempt.small):
            if situation.training:  # other operators may run than those of the graph
                return f"it is needed in training ({error})"
            return f"{name} could not run without it ({error})"
        return ""


def stays_for_sizes(attempts: Attempts) -> Stays:
    """Search for units that have to stay because code of modules needs their sizes; none if copies fail otherwise."""
    stays: Stays = {}
    attempt = attempts(stays)
    classes = 0  # the number of classes whose modules failed so far
    while attempt.found is None:
        more = _with_module(attempts, attempt, stays)
        if not more.keys() - stays.keys():  # the cause is not in the module that failed
            return {}
        stays, classes = more, classes + 1
        attempt = attempts(stays)
    if classes < 2:  # for one class, the set is already minimal
        return stays
    # the units that stay for one class may be enough for another class that failed before

    def enough(some: list[Axis]) -> bool:
        return attempts({axis: stays[axis] for axis in some}).found is not None

    return {axis: stays[axis] for axis in _fewest(list(stays), enough, MOST_TRIALS)}


def stays_for_outputs(attempts: Attempts, stays: Stays) -> tuple[Stays, str]:
    """Search for units that have to stay for the outputs to be the same; also return the error that then remains."""
    attempt = attempts(stays)
    error = attempts.error(attempt)
    if error:
        axes = [axis for axis, gone in attempt.removal.gone.items() if gone.any()]
        needed = _fewest(axes, lambda some: not attempts.error(attempts(stays | dict.fromkeys(some, error))))
        stays = stays | dict.fromkeys(needed, error)
        error = attempts.error(attempts(stays))
    if error:
        stays = {family.axis: error for family in attempts.units.removable}
        error = attempts.error(attempts(stays))
    return stays, error


def exportable(attempts: Attempts, stays: Stays) -> Attempt:
    """Search for sizes with which the copy can also be exported: export may take another path through the code."""
    attempt = attempts(stays)
    if attempt.keeps_candidates and attempt.export_error():
        again = attempts(stays, traced=True)
        return attempt if attempts.error(again) else again
    return attempt


def _fewest(of: list[Axis], enough: Callable[[list[Axis]], bool], trials: int = 256) -> list[Axis]:
    """Return a small part of a list that is enough, given that the whole list is enough and the empty list is not.

    Unless the trials run out, no single item can be dropped from the result.
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


def _with_module(attempts: Attempts, attempt: Attempt, stays: Stays) -> Stays:
    """Add a small set of axes whose sizes the modules of the failed class need."""
    units, model = attempts.units, attempts.model
    path, roles = _roles(units, model, attempt.failed)
    cls = type(model.get_submodule(path))
    reason = f"{cls.__name__} could not run without it ({attempt.error})"

    def with_roles(which: Iterable[int]) -> Stays:
        return stays | {axis: reason for role in which for axis in roles[role]}

    needed = list(range(len(roles)))
    for role in range(len(roles)):
        others = [other for other in needed if other != role]
        tried = attempts(with_roles(others))
        if tried.found is not None or type(model.get_submodule(_roles(units, model, tried.failed)[0])) is not cls:
            needed = others
    return with_roles(needed)


def _roles(units: UnitMap, model: nn.Module, path: str) -> tuple[str, list[list[Axis]]]:
    """Return the axes whose sizes are arguments of operators, in a module or the nearest module around it.

    Returns:
        The path of the module, and its axes in the order in which they occur, each with the axes at the same place in
        other modules of the class. Axes whose units all stay anyway are left out.
    """
    removable = {family.axis for family in units.removable}
    sized: dict[str, dict[Axis, None]] = {}
    for node in units.structure.trace.nodes:
        if node.op == "call_function" and isinstance(rule_of(node.target), TAKES_SIZES):
            for value in (node, *node.all_input_nodes):
                axes = (axis for dim in all_dims(units.structure.shapes.get(value)) for axis in axes_of(dim))
                sized.setdefault(module_of(node), {}).update(dict.fromkeys(axis for axis in axes if axis in removable))
    while path and not sized.get(path):
        path = path.rpartition(".")[0]
    if not sized.get(path):
        return path, []
    cls = type(model.get_submodule(path))
    alike = [list(axes) for other, axes in sized.items() if type(model.get_submodule(other)) is cls]
    idle = {axis for axis, units_of in units.idle().items() if units_of.any()}
    columns = ([axis for axis in column if axis in idle] for column in itertools.zip_longest(*alike))
    return path, [column for column in columns if column]
