"""What can be taken out of a model so that it still runs and gives what it gave: found by trying."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_inputs, check_model, check_whole
from torchlasso.compaction.attributes import (
    Choice,
    Sizes,
    assign_,
    assignments,
    choices,
    module_of,
)
from torchlasso.compaction.cutting import Cut
from torchlasso.compaction.folding import find_removal
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.verify import difference, disagreement, run
from torchlasso.graph import UnitMap, find_units
from torchlasso.graph.axes import Axis, axes_of
from torchlasso.graph.operators import all_dims, rule_of
from torchlasso.graph.rules.pointwise import Make
from torchlasso.graph.rules.shapes import Expand, Repeat, Reshape, Slice, Split
from torchlasso.graph.tracing import Inputs, first_line

TOLD = (Reshape, Split, Expand, Repeat, Slice, Make)  # operators that are told sizes


def find_cut(model: nn.Module, example_inputs: Inputs, multiple_of: int = 1, units: UnitMap | None = None) -> Cut:
    """What can be taken out of a model; it was tried on a copy. ``units``: of the model as it is, if they are known."""
    check_model("model", model)
    check_inputs("example_inputs", example_inputs)
    check_whole("multiple_of", multiple_of)
    units = units or find_units(model, example_inputs)
    precision = units.structure.trace.precision
    original = precision.copied(model)
    outputs = run(original, example_inputs, training=False, precision=precision)

    def attempt(stays: dict[Axis, str]) -> Fitting:
        return Fitting(units, find_removal(units, multiple_of, stays), original, example_inputs, outputs)

    def wrong(fitting: Fitting) -> str:
        if fitting.found is None:
            return f"{type(model).__name__} could not run without it ({fitting.error})"
        error = disagreement(original, fitting.small, example_inputs, training=False, precision=precision)
        if error:
            return f"{type(model).__name__} could not run without it ({error})"
        error = disagreement(original, fitting.small, example_inputs, training=True, precision=precision)
        return f"it is needed in training ({error})" if error else ""  # where other operators run than were read

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
        needed = _fewest(
            list(pinned), lambda some: attempt({axis: pinned[axis] for axis in some}).found is not None, 16
        )
        pinned = {axis: pinned[axis] for axis in needed}
        fitting = attempt(pinned)
    reason = wrong(fitting)
    if reason:
        axes = [axis for axis, gone in fitting.removal.gone.items() if gone.any()]
        needed = _fewest(axes, lambda some: not wrong(attempt(pinned | dict.fromkeys(some, reason))))
        fitting = attempt(pinned | dict.fromkeys(needed, reason))
        reason = wrong(fitting)
    if reason or fitting.found is None:
        raise RuntimeError(
            f"the smaller model is not what the other is, so it is refused: {reason}; please report this"
        )
    return Cut(units, fitting.removal, fitting.found)


def _fewest(of: list[Axis], enough: Callable[[list[Axis]], bool], trials: int = 256) -> list[Axis]:
    """Few of a list that are enough, where all are: none of them can be left out alone, if trials do not run out."""
    needed, size = of, len(of)
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
        failed: the path of the module in which it failed, at the first try.
        error: what was said there.
    """

    def __init__(
        self, units: UnitMap, removal: Removal, original: nn.Module, example_inputs: Inputs, wanted: list[Tensor]
    ) -> None:
        precision = units.structure.trace.precision
        self.removal, self.small = removal, precision.copied(original)
        self.found: list[tuple[Choice, int]] | None = None
        self.failed, self.error = "", ""
        self._running: list[str] = []
        Cut(units, removal, []).apply_(self.small)
        handles = list(self._watch(self.small))
        for chosen in assignments(choices(self.small, Sizes.of(units.structure, removal))):
            assign_(self.small, chosen)
            self._running.clear()
            try:
                with warnings.catch_warnings():  # of sizes that do not fit, which is what is tried here
                    warnings.simplefilter("ignore")
                    given = run(self.small, example_inputs, training=False, precision=precision)
            except Exception as error:  # of any kind: it is the model's own code
                self.failed = self.failed or self._running[-1]
                self.error = self.error or first_line(error)
                continue
            if difference(wanted, given) <= precision.tolerance:
                self.found = chosen
                break
            self.error = self.error or "the outputs differ"
        for handle in handles:
            handle.remove()

    def _watch(self, model: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Note which modules are running."""
        for path, module in model.named_modules():
            yield module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path))
            yield module.register_forward_hook(lambda *_: self._left())

    def _left(self) -> None:
        self._running.pop()


def _pins(
    units: UnitMap,
    model: nn.Module,
    fitting: Fitting,
    pinned: dict[Axis, str],
    attempt: Callable[[dict[Axis, str]], Fitting],
) -> dict[Axis, str]:
    """What has to stay so that the modules of the class in which it failed know their sizes; as little as possible."""
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
        same place in other modules of the class.
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
    return path, [[axis for axis in column if axis] for column in itertools.zip_longest(*alike)]
