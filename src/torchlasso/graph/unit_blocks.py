"""Units as blocks: the weights, biases, scales and shifts that compute each of them."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from torchlasso._core.arguments import check_inputs, check_kind, check_model
from torchlasso._core.parametrized import computed_from
from torchlasso._core.running import ExampleInputs
from torchlasso.graph.axes import Axis, Dim, Sum, resolve, units_in
from torchlasso.graph.flops import flops_of_units
from torchlasso.graph.operators import Call, Shaped, arguments, found_in, name_of, rule_of
from torchlasso.graph.rules.shapes import Permute
from torchlasso.graph.structure import Structure
from torchlasso.graph.units import UnitMap, find_units
from torchlasso.penalties.joint import Joint, Piece


class Units(Joint):
    """The removable units of a model: one block for each unit, with all parameters that compute it.

    The block of a neuron or channel contains its incoming weights, its bias, and the scale and shift of its
    normalisation. If a residual connection adds several layers, the block contains these parameters of all of them. The
    block of an attention head contains the rows of its queries, keys and values, and the block of a hidden unit of an
    LSTM, GRU or RNN its rows of all gates, with their biases. If a block is zero, its unit is zero
    for all inputs, and :func:`torchlasso.compact` removes it. The weights that read a unit belong to the blocks of the
    units that they compute.

    With ``L1``, the penalty is λ Σ_u √|u| ‖w_u‖₂: the group lasso of Yuan and Lin (2006).

    Args:
        model: any model that ``torch.export`` can export.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        only: a pattern (as in ``fnmatch``) for the names of the families of units: the name of the first parameter and
            the dimension; ``"*"`` for all.
        weighted: see :class:`~torchlasso.penalties.blocks.Partition`.
        by: ``"size"``: λ of a unit is proportional to √|u|. ``"flops"``: λ is proportional to the operations of the
            unit, in the layers that compute and read it, so that the most expensive units are removed first (as in
            MorphNet, Gordon et al. 2018); the average over all units is the same as by size.

    Raises:
        ValueError: the model cannot be exported or has no such unit; ``by`` is not one of the two, or is ``"flops"``
            for a model without matrix products.

    Examples:
        >>> import torchlasso as tl
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> units = tl.Units(net, torch.randn(1, 1, 4, 4))
        >>> units.names
        ('0.weight', '0.bias', '1.weight', '1.bias')
        >>> [g["penalty"] is not None for g in tl.param_groups(net, tl.L1(over=units), lam=1e-3)]
        [True, False]
    """

    noun: ClassVar[str] = "units"

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        *,
        only: str = "*",
        weighted: bool = True,
        by: str = "size",
    ) -> None:
        check_model("Units: model", model)
        check_inputs("Units: example_inputs", example_inputs)
        check_kind("Units: only", only, str, "a pattern such as '*'")
        if by not in ("size", "flops"):
            raise ValueError(f"Units: by must be 'size' or 'flops'; got {by!r}")
        units = find_units(model, example_inputs)
        chosen = {family.axis for family in units.removable if fnmatch.fnmatchcase(family.name, only)}
        read = _read_along(units.structure)
        computed, parameters, without = computed_from(model), [], {}
        for name, p in model.named_parameters():
            weight = computed.get(p)
            if weight is None or p in weight.together:
                parameters.append(name)
            elif not weight.together:
                without[weight.name] = {axis for _, axis, _ in _made(units.structure, name, chosen, read)}
        chosen -= {axis for axes in without.values() for axis in axes}
        made = [(name, *slices) for name in parameters for slices in _made(units.structure, name, chosen, read)]
        if not made:
            among = ", ".join(family.name for family in units.removable[:6]) or _pinned(units)
            among += f"; {_computed(without)}" if any(without.values()) else ""
            unknown = ", ".join(units.structure.unknown)
            among += f"; operators that are not understood keep all units around them: {unknown}" if unknown else ""
            raise ValueError(f"Units: the model has no removable unit whose family matches {only!r}; {among}")
        if any(without.values()):
            warnings.warn(f"Units leaves units out: {_computed(without)}", stacklevel=2)
        names = list(dict.fromkeys(name for name, _, _, _ in made))
        families: dict[Axis, list[Piece]] = {}
        for name, dim, axis, indices in made:
            families.setdefault(axis, []).append(Piece(names.index(name), dim, indices))
        super().__init__(tuple(names), tuple(map(tuple, families.values())), weighted)
        if by == "flops":
            tensors = dict(model.named_parameters())
            sizes = [sum(piece.size(tensors[names[piece.tensor]]) for piece in pieces) for pieces in self.families]
            object.__setattr__(self, "scales", _by_flops(units.structure, list(families), sizes, weighted))

    def __repr__(self) -> str:
        return f"Units({sum(len(pieces[0].indices) for pieces in self.families)} of {len(self.names)} parameters)"


def _pinned(units: UnitMap) -> str:
    """Return why a model has no units that can be removed, for the first of those that are no inputs or outputs."""
    pinned = [f for f in units.families if f.pins and not any(why.startswith("it is a dimension of") for why in f.pins)]
    reasons = ", ".join(f"{f.name} stays whole, since {f.pins[0]}" for f in pinned[:3])
    return f"there is none: {reasons}" if reasons else "there is none"


def _computed(without: Mapping[str, Collection[Axis]]) -> str:
    names = ", ".join(name for name, axes in without.items() if axes)
    return f"no parameter that {names} is computed from makes it zero by being zero"


def _by_flops(structure: Structure, axes: list[Axis], sizes: list[int], weighted: bool) -> tuple[float, ...]:
    """Return the factor on λ for each family beside √size: its FLOPs, scaled to the same average."""
    flops = flops_of_units(structure)
    found = [flops.get(axis, 0.0) for axis in axes]
    if not all(found):
        raise ValueError("Units: by='flops' needs operations to count, and no operation uses the units of this model")
    roots = [size**0.5 if weighted else 1.0 for size in sizes]
    unit = sum(axis.size * root for axis, root in zip(axes, roots, strict=True))
    unit /= sum(axis.size * each for axis, each in zip(axes, found, strict=True))
    return tuple(unit * each / root for each, root in zip(found, roots, strict=True))


def _made(
    structure: Structure, name: str, chosen: Collection[Axis], read: Collection[tuple[str, int]]
) -> Iterator[tuple[int, Axis, Tensor]]:
    """Yield the slices of a parameter that compute units: dimension, axis, and the indices (n_units, slices).

    Each element belongs to at most one unit. If it could belong to several, such as a head and one of its dimensions,
    it belongs to the first.
    """
    for place, dim in enumerate(structure.parameters.get(name, ())):
        owners = _owners(dim, chosen) if (name, place) not in read else []
        axes = list(dict.fromkeys(axis for axis in owners if axis is not None))
        for axis in axes:
            where = torch.tensor([i for i, owner in enumerate(owners) if owner is axis])
            order = units_in(dim, axis)[where].argsort(stable=True)
            yield place, axis, where[order].reshape(axis.size, -1)
        if axes:
            return


def _owners(dim: Dim, chosen: Collection[Axis]) -> list[Axis | None]:
    """Return the axis whose unit each index of a dimension belongs to."""
    dim = resolve(dim)
    if isinstance(dim, Axis):
        return [dim if dim in chosen else None] * dim.size
    parts = [_owners(part, chosen) for part in dim.parts]
    if isinstance(dim, Sum):
        return [owner for part in parts for owner in part]
    found: list[Axis | None] = [None]
    for part in parts:
        found = [outer or inner for outer in found for inner in part]
    return found


def _read_along(structure: Structure) -> set[tuple[str, int]]:
    """Return parameters and their dimensions that are summed over: these read units instead of computing them."""
    found = set()
    for node in structure.trace.nodes:
        rule = rule_of(node.target) if node.op == "call_function" else None
        if rule is not None and rule.adds_up:
            args = arguments(node)
            call: Call[Shaped] = Call(name_of(node.target), torch.fx.node.map_arg(args, structure.shapes.get), None)
            tensors = [x for x in found_in(args, (fx.Node,)) if isinstance(structure.shapes.get(x), Shaped)]
            places = (_place_in(structure, tensors[position], place) for position, place in rule.reads(call))
            found |= {place for place in places if place is not None}
    return found


def _place_in(structure: Structure, node: fx.Node, place: int) -> tuple[str, int] | None:
    """Return the parameter and dimension behind a dimension of a value, if the value permutes a parameter."""
    while isinstance(rule_of(node.target), Permute):
        rank = len(structure.shapes[node].dims)
        place = Permute.order(Call(name_of(node.target), arguments(node), None), rank)[place]
        (node,) = node.all_input_nodes
    name = structure.trace.names.get(node)
    return None if name is None else (name, place)
