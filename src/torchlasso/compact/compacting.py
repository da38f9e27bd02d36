"""Take the units out of a model that make no difference to its outputs."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from torchlasso.compact.attributes import (
    Choice,
    Sizes,
    assign_,
    assignments,
    choices,
    module_of,
    set_own_,
)
from torchlasso.compact.checking import TOLERANCE, difference, disagreement, run
from torchlasso.compact.folding import find_removal
from torchlasso.compact.record import CompactionReport, FamilyReport, Totals
from torchlasso.compact.removal import Removal
from torchlasso.compact.surgery import cut_
from torchlasso.graph import UnitMap, find_units
from torchlasso.graph.axes import Axis, Dim, axes_of
from torchlasso.graph.operators import all_dims, rule_of
from torchlasso.graph.rules.pointwise import Make
from torchlasso.graph.rules.shapes import Expand, Repeat, Reshape, Slice, Split
from torchlasso.graph.tracing import Inputs, doubled, first_line

TOLD = (Reshape, Split, Expand, Repeat, Slice, Make)  # operators that are told sizes


@dataclass(frozen=True)
class Cut:
    """What has to be done to a model, and can be done to any copy of it.

    Attributes:
        units: of the model.
        removal: what goes.
        numbers: what attributes of modules become that are not torch's own.
    """

    units: UnitMap
    removal: Removal
    numbers: list[tuple[Choice, int]]

    def to_dict(self) -> dict[str, Any]:
        """What goes, by the names of families, and the numbers: all that :meth:`from_dict` needs beside the units."""
        gone = {
            family.name: self.removal.gone[family.axis].nonzero().flatten().tolist()
            for family in self.units.removable
            if self.removal.gone[family.axis].any()
        }
        numbers = [[choice.path, choice.name, choice.place, value] for choice, value in self.numbers]
        return {"gone": gone, "numbers": numbers}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], units: UnitMap) -> Cut:
        """The cut that was recorded, of a model of the same shape, without anything that is added to what stays.

        Raises:
            ValueError: the model is another one.
        """
        axes = {family.name: family.axis for family in units.removable}
        gone = {}
        for name, which in record["gone"].items():
            if name not in axes or max(which) >= axes[name].size:
                raise ValueError(f"the model has no units {name!r} as those that were taken out")
            gone[axes[name]] = torch.zeros(axes[name].size, dtype=torch.bool)
            gone[axes[name]][torch.tensor(which)] = True
        numbers = [
            (Choice(path, name, place, (object, name, False), (value,)), value)
            for path, name, place, value in record["numbers"]
        ]
        return cls(units, Removal(gone), numbers)

    def apply_(self, model: nn.Module) -> list[tuple[Tensor, list[Dim]]]:
        """Cut a model; returns its tensors that are smaller now, and their dimensions as they were."""
        changed = cut_(model, self.units.structure.parameters, self.removal)
        set_own_(model, Sizes.of(self.units.structure, self.removal))
        assign_(model, self.numbers)
        return changed


@overload
def compact(
    model: nn.Module, example_inputs: Inputs, *, multiple_of: int = 1, return_report: Literal[False] = False
) -> nn.Module: ...
@overload
def compact(
    model: nn.Module, example_inputs: Inputs, *, multiple_of: int = 1, return_report: Literal[True]
) -> tuple[nn.Module, CompactionReport]: ...
def compact(
    model: nn.Module, example_inputs: Inputs, *, multiple_of: int = 1, return_report: bool = False
) -> nn.Module | tuple[nn.Module, CompactionReport]:
    """A smaller model with the same outputs: without the units that make no difference to them.

    A unit (a channel, a neuron, a head) makes no difference if it is the same for all inputs, because all its incoming
    weights are zero, or if nothing reads it, because all its outgoing weights are. What it is the same for all inputs
    is added to the biases of what reads it; where that cannot be exact, it stays.

    Args:
        model: any that ``torch.export`` can export; it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. A small batch is enough.
        multiple_of: keep so many units of each family that they make a multiple of this, as some hardware likes it.
        return_report: return what went, and what stayed and why, too.

    Returns:
        A model of the same classes, with the same names in its ``state_dict``, and, where asked for, the report. Before
        it is returned, both models have run side by side in float64, on the example inputs and on random ones, in
        evaluation and in training (without dropout).

    Raises:
        ValueError: the model cannot be exported, or ``multiple_of`` is below 1.
        RuntimeError: the outputs are not the same. This is never meant to happen; please report it.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = nn.init.zeros_(net[0].weight[:5])  # five neurons whose input no longer counts
        >>> small = compact(net, torch.randn(3, 4))
        >>> small
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
          (2): Linear(in_features=3, out_features=2, bias=True)
        )
    """
    small, report, _ = compacted(model, example_inputs, multiple_of)
    return (small, report) if return_report else small


def compacted(
    model: nn.Module, example_inputs: Inputs, multiple_of: int = 1
) -> tuple[nn.Module, CompactionReport, Cut]:
    """A smaller model with the same outputs, what went and what stayed, and what was done."""
    cut = find_cut(model, example_inputs, multiple_of)
    small = copy.deepcopy(model)
    cut.apply_(small)
    return small, report_of(cut, model, small, example_inputs), cut


def report_of(cut: Cut, before: nn.Module, after: nn.Module, example_inputs: Inputs) -> CompactionReport:
    """What went, what stayed and why."""
    gone, stays = cut.removal.gone, cut.removal.stays
    families = []
    for family in cut.units.families:
        if family.pins and (family.size == 1 or all(place != 0 for _, place in family.places)):
            continue  # places of a kernel, inputs: nobody asks why these stay
        left = int((~gone[family.axis]).sum()) if family.axis in gone else family.size
        why = (*family.pins, *stays.get(family.axis, ()))
        families.append(FamilyReport(family.name, family.size, left, why))
    totals = [Totals.of(model, example_inputs) for model in (before, after)]
    return CompactionReport(tuple(families), dict(cut.units.structure.unknown), *totals)


def find_cut(model: nn.Module, example_inputs: Inputs, multiple_of: int = 1, units: UnitMap | None = None) -> Cut:
    """What can be taken out of a model; it was tried on a copy. ``units``: of the model as it is, if they are known."""
    if multiple_of < 1:
        raise ValueError(f"multiple_of has to be 1 or more, and is {multiple_of}")
    units = units or find_units(model, example_inputs)
    original = doubled(model)

    def attempt(stays: dict[Axis, str]) -> Fitting:
        return Fitting(units, find_removal(units, multiple_of, stays), original, example_inputs)

    def wrong(fitting: Fitting) -> str:
        if fitting.found is None:
            return f"{type(model).__name__} could not run without it ({fitting.error})"
        error = disagreement(original, fitting.small, example_inputs, training=False)
        if error:
            return f"{type(model).__name__} could not run without it ({error})"
        error = disagreement(original, fitting.small, example_inputs, training=True)
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

    def __init__(self, units: UnitMap, removal: Removal, original: nn.Module, example_inputs: Inputs) -> None:
        self.removal, self.small = removal, copy.deepcopy(original)
        self.found: list[tuple[Choice, int]] | None = None
        self.failed, self.error = "", ""
        self._running: list[str] = []
        Cut(units, removal, []).apply_(self.small)
        handles = list(self._watch(self.small))
        wanted = run(original, example_inputs, training=False)
        for chosen in assignments(choices(self.small, Sizes.of(units.structure, removal))):
            assign_(self.small, chosen)
            self._running.clear()
            try:
                with warnings.catch_warnings():  # of sizes that do not fit, which is what is tried here
                    warnings.simplefilter("ignore")
                    given = run(self.small, example_inputs, training=False)
            except Exception as error:  # of any kind: it is the model's own code
                self.failed = self.failed or self._running[-1]
                self.error = self.error or first_line(error)
                continue
            if difference(wanted, given) <= TOLERANCE:
                self.found = chosen
                break
            self.error = self.error or "the outputs differ"
        for handle in handles:
            handle.remove()

    def _watch(self, model: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Note which modules are running."""
        for path, module in model.named_modules():
            yield module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path))
            yield module.register_forward_hook(self._left)

    def _left(self, module: nn.Module, inputs: object, outputs: object) -> None:
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
