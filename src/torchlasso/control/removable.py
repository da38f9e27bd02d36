"""The units that compaction can remove, as channels of the layers of a probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from torchlasso._core.wrappers import uncompiled
from torchlasso.compaction.coverage import read_parameters
from torchlasso.compaction.fixed_units import fixed_units
from torchlasso.compaction.layer_sizes import dims_of, module_of
from torchlasso.compaction.operations import Summand, count, products
from torchlasso.compaction.removal import Removal, even_out
from torchlasso.control.sites import Live, LiveParts, Site
from torchlasso.graph import UnitMap, find_units
from torchlasso.graph.axes import Axis, Dim, Product, Sum, axes_of, count_of, resolve, units_in
from torchlasso.graph.operators import arguments, rule_of
from torchlasso.graph.rules.contractions import Affine
from torchlasso.graph.rules.recurrent import Recurrence
from torchlasso.graph.structure import Structure
from torchlasso.graph.units import UNREAD

SAMPLES = 2  # of the example inputs on which the units are searched
MOST_NAMED = 3  # layers in a message

Ends = tuple[Dim | None, Dim | None]  # the outputs and the inputs of a layer; None if the graph does not show them


@dataclass(frozen=True)
class Side:
    """The channels at one side of a layer, as units.

    Attributes:
        units: for each axis that can become smaller, the unit of each channel, (channels,); -1 for none. None if the
            graph does not show the channels.
        why: the reasons why other axes cannot.
    """

    units: Mapping[Axis, Tensor] | None
    why: tuple[str, ...]

    @classmethod
    def of(cls, dim: Dim | None, copies: Mapping[Axis, Axis], why: Mapping[Axis, str]) -> Side:
        """Return the channels of a dimension, given copies of the axes that can become smaller."""
        if dim is None:
            return cls(None, ())
        axes = dict.fromkeys(axes_of(dim))
        units = {copies[axis]: units_in(dim, axis) for axis in axes if axis in copies}
        return cls(units, tuple(dict.fromkeys(why[axis] for axis in axes if axis in why and axis.size > 1)))

    def note(self, live: Tensor, gone: Mapping[Axis, Tensor]) -> None:
        """Unmark the units of channels that are live."""
        for axis, units in (self.units or {}).items():
            here = units[live]
            gone[axis][here[here >= 0]] = False

    def kept(self, live: Tensor, gone: Mapping[Axis, Tensor]) -> Tensor:
        """Return a mask of the channels without a unit that is gone."""
        if self.units is None:
            return live
        kept = torch.ones_like(live)
        for axis, units in self.units.items():
            kept &= (units < 0) | ~gone[axis][units]
        return kept


# Either side of a layer that runs although the model's outputs do not depend on it, so that compaction leaves it alone.
WHOLE = Side({}, (UNREAD,))


@dataclass(frozen=True)
class Removable:
    """The units of a model that compaction can remove.

    Compaction removes units, not channels of single layers: a channel goes if its unit has no effect anywhere. Of heads
    and the dimensions of a head, whole heads go, and whole dimensions of all heads; parts of equal size, from a split
    or of a recurrent layer, stay of equal size; and one unit of each family stays. Families that compaction cannot make
    smaller stay whole.

    Attributes:
        fixed: the names of the families that stay whole although the graph lets units go, each with a reason.
        sides: the outputs and the inputs of each layer.
        axes: the axes that can become smaller.
        products: the multiplications of products of two activations.
        tensors: the numbers of elements of the parameters, by the bytes of each.
    """

    fixed: Mapping[str, str]
    sides: Sequence[tuple[Side, Side]]
    axes: Sequence[Axis]
    products: Sequence[Summand]
    tensors: Mapping[int, Sequence[Summand]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        example_inputs: tuple[Tensor, ...],
        sites: Sequence[Site],
        fixed: Mapping[str, str] | None = None,
    ) -> Removable:
        """Find the units of a model.

        Args:
            model: the model; it is not changed.
            example_inputs: its inputs, of which the first two samples are taken.
            sites: the layers.
            fixed: these families, if they are known. Otherwise they are found by an experiment
                (:func:`~torchlasso.compaction.fixed_units.fixed_units`).

        Raises:
            ValueError: the model cannot be exported or compacted.
        """
        model = uncompiled(model)
        units, inputs = _units_of(model, example_inputs)
        if fixed is None:
            found = fixed_units(model, inputs, units)
            fixed = {family.name: found[family.axis] for family in units.families if family.axis in found}
        ends, read = list(_ends_of(model, units.structure, sites)), read_parameters(model, units.structure.trace)
        copies = _copies(units, fixed, [dim for pair in ends for dim in pair if dim is not None])
        pins = {family.axis: family.pins or (fixed.get(family.name, ""),) for family in units.families}
        why = {axis: reasons[0] for axis, reasons in pins.items() if reasons[0]}
        sides = [
            (Side.of(outputs, copies, why), Side.of(inputs, copies, why)) if site.weight in read else (WHOLE, WHOLE)
            for site, (outputs, inputs) in zip(sites, ends, strict=True)
        ]
        sums = [[_copied(dim, copies) for dim in term] for term in products(units.structure)]
        tensors: dict[int, list[Summand]] = {}
        for p, dims in _parameters(model, units.structure):
            tensors.setdefault(p.element_size(), []).append([_copied(dim, copies) for dim in dims])
        return cls(fixed, sides, list(copies.values()), sums, tensors)

    def kept(self, layers: Sequence[Live]) -> LiveParts:
        """Return the channels that compaction keeps, the share of the products of two activations, and the parameters.

        Args:
            layers: the channels of each layer that are live on a sample.
        """
        removal = Removal({axis: torch.ones(axis.size, dtype=torch.bool) for axis in self.axes})
        for live, (outputs, inputs) in zip(layers, self.sides, strict=True):
            outputs.note(live.outputs, removal.gone)
            inputs.note(live.inputs, removal.gone)
        even_out(removal, 1)
        kept = [
            Live(live.groups, outputs.kept(live.outputs, removal.gone), inputs.kept(live.inputs, removal.gone))
            for live, (outputs, inputs) in zip(layers, self.sides, strict=True)
        ]
        dense = count(self.products, Removal({}))
        share = count(self.products, removal) / dense if dense else None
        left = {size: count(numbers, removal) for size, numbers in self.tensors.items()}
        return LiveParts(kept, share=share, parameters=left)

    def reasons(self, costs: Mapping[str, float]) -> str:
        """Return a part of a sentence that names the layers of the highest cost that cannot become smaller, and why.

        Args:
            costs: the names of all layers with what is left of their cost.
        """
        why = {name: [*sides[0].why, *sides[1].why] for name, sides in zip(costs, self.sides, strict=True)}
        named = sorted((name for name in costs if why[name]), key=lambda name: -costs[name])[:MOST_NAMED]
        layers = ", ".join(f"{name} ({', '.join(dict.fromkeys(why[name]))})" for name in named)
        return layers and f" and cannot make all of {layers} smaller"


def _units_of(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[UnitMap, tuple[Tensor, ...]]:
    """Return the units of a model, and the inputs on which they were found: two samples, or all where these fail."""
    few = tuple(x[:SAMPLES] for x in example_inputs)
    try:
        return find_units(model, few), few
    except ValueError:  # such as a model that takes batches of one size
        return find_units(model, example_inputs), example_inputs


def _ends_of(model: nn.Module, structure: Structure, sites: Sequence[Site]) -> Iterator[Ends]:
    """Yield the outputs and the inputs of layers in the graph."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    paths = {module: path for path, module in model.named_modules()}
    nodes: dict[str | Tensor, fx.Node] = {}
    for node in structure.trace.nodes:
        if node.op == "call_function" and isinstance(rule_of(node.target), Affine):
            name = structure.trace.names.get(arguments(node)["weight"])
            nodes.setdefault(module_of(node) if name is None else tensors.get(name, name), node)
    for site in sites:
        keys = [site.weight, *(paths[owner] for owner in site.owners)]  # by the module if the weight is computed
        found = [nodes[key] for key in keys if key in nodes]
        yield _channels(structure, found[0], site) if found else (None, None)


def _parameters(model: nn.Module, structure: Structure) -> Iterator[tuple[Tensor, list[Dim]]]:
    """Yield all parameters of a model with their dimensions."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    known = {tensors[name]: dims for name, dims in structure.parameters.items() if name in tensors}
    for p in model.parameters():
        yield p, known.get(p) or [Axis(size) for size in p.shape]


def _channels(structure: Structure, node: fx.Node, site: Site) -> Ends:
    """Return the dimensions of the channels of a layer: a convolution's input may be without a batch."""
    x, y = dims_of(structure, arguments(node)["input"]), dims_of(structure, node)
    place = len(y) + 1 - site.weight.dim()
    fits = (y[place].size, x[place].size) == (site.outputs, site.inputs)
    return (y[place], x[place]) if fits else (None, None)


def _copies(units: UnitMap, fixed: Mapping[str, str], dims: Sequence[Dim]) -> dict[Axis, Axis]:
    """Return the axes of some dimensions that can become smaller, each with a copy.

    The axes of a graph are bound to thousands of others, which a controller need not keep. Units of recurrent layers
    stay: others of the layer may read a unit that no other layer reads.
    """
    structure = units.structure
    recurrent = [node for node in structure.trace.nodes if isinstance(rule_of(node.target), Recurrence)]
    states = {axis for node in recurrent for dim in dims_of(structure, node) for axis in axes_of(dim)}
    seen = {axis for dim in dims for axis in axes_of(dim)} - states
    whole = {count_of(f.axis) for f in units.families if f.pins or f.name in fixed or f.axis not in seen}
    copies, first = dict[Axis, Axis](), dict[Axis, Axis]()
    for axis in (family.axis for family in units.families if count_of(family.axis) not in whole):
        copies[axis] = Axis(axis.size, tied=first.get(count_of(axis)))
        first.setdefault(count_of(axis), copies[axis])
    return copies


def _copied(dim: Dim, copies: Mapping[Axis, Axis]) -> Dim:
    dim = resolve(dim)
    if isinstance(dim, Axis):
        return copies.get(dim) or Axis(dim.size)
    parts = tuple(_copied(part, copies) for part in dim.parts)
    return Product(parts) if isinstance(dim, Product) else Sum(parts)
