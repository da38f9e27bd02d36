"""Plan a removal that changes no output: the constants of removed units are folded into the biases that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx

from torchlasso.compaction.layer_sizes import module_of
from torchlasso.compaction.removal import Removal, even_out
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Axis, Dim, axes_of, resolve, units_in
from torchlasso.graph.operators import Call, Shaped, arguments, name_of, rule_of
from torchlasso.graph.rules.contractions import Affine
from torchlasso.graph.rules.norms import BatchNorm
from torchlasso.graph.rules.recurrent import Recurrence
from torchlasso.graph.rules.shapes import Permute, Reshape

DEPENDS = "its constant depends on the sizes of the inputs, such as their length"
CUT_OFF = "the part of it that is read depends on the sizes of the inputs, such as their length"

Refused = list[tuple[Axis, Tensor, str]]  # units that cannot be removed, and why


def plan_removal(
    units: UnitMap, multiple_of: int | Mapping[Axis, int] = 1, pinned: dict[Axis, str] | None = None
) -> Removal:
    """Return the largest removal that changes no output.

    All idle units are removed, except those whose constant cannot be added to a bias: because its effect is not the
    same everywhere, as beside a border that is padded with zeros, because it depends on the sizes of the inputs, as the
    sum over a sequence does, or because there is no bias.

    Args:
        units: the units of the model.
        multiple_of: the number of units in each family stays a multiple of this, or the family stays whole; one number
            for all, or one for each axis.
        pinned: axes whose units all stay, and why.
    """
    idle = units.idle()
    refused = [(axis, torch.ones(axis.size, dtype=torch.bool), reason) for axis, reason in (pinned or {}).items()]
    while True:
        removal = Removal(dict(idle))
        for axis, which, reason in refused:
            removal.keep(axis, which, reason)
        even_out(removal, multiple_of)  # each time again, since the refused units may already be enough
        folding = Folding(units, removal)
        more = folding.refused or folding.refused_at_other_sizes()
        if not more:
            removal.shifts.update(folding.shifts)
            return removal
        refused += more


class Folding:
    """The folding of constants: the changes of biases and running means that a removal needs.

    Attributes:
        shifts: the tensors to add to parameters and buffers, by name, in their old shapes.
        refused: the units whose constants cannot be folded.
        constants: for each family, the removed units whose constant is not zero and is read by a layer.
    """

    def __init__(self, units: UnitMap, removal: Removal) -> None:
        self.units, self.removal, self.flows, self.shapes = units, removal, units.flows, units.structure.shapes
        self.trace = units.structure.trace
        self.shifts: dict[str, Tensor] = {}
        self.refused: Refused = []
        self.constants: dict[Axis, Tensor] = {}
        self._wanted: dict[str, list[tuple[fx.Node, Tensor]]] = {}
        for node in self.trace.nodes:
            rule = rule_of(node.target) if node.op == "call_function" else None
            if isinstance(rule, Affine):
                self._layer(node, rule)
            elif isinstance(rule, Recurrence):
                self._recurrence(node, rule)
            elif rule is not None and rule.adds_up and self._touched(node) and not self._same_without(node, removal):
                reason = f"{name_of(node.target).removeprefix('aten.')} adds up its constant"
                self._refuse(node.all_input_nodes, reason, partial(self._same_without, node))
        self._agree()

    def _dims(self, node: fx.Node) -> list[Dim]:
        shape = self.shapes.get(node)
        return shape.dims if isinstance(shape, Shaped) else []

    def _touched(self, node: fx.Node) -> bool:
        return any(self.removal.touches(dim) for x in node.all_input_nodes for dim in self._dims(x))

    def _layer(self, node: fx.Node, rule: Affine) -> None:
        """Record the change of a layer's bias, or of the running mean of the batch norm behind a layer without one."""
        args = arguments(node)
        bias, names = args.get("bias"), self.trace.names
        change = self._change(node, self.removal)
        for axis, units in self._constants(node).items():
            self.constants[axis] = self.constants.get(axis, units) | units
        if change is None:
            reason = f"its constant does not have the same effect everywhere in {_place(node)}"
            self._refuse([args["input"]], reason, lambda some: self._change(node, some) is not None)
        elif bias in names:
            self._wanted.setdefault(names[bias], []).append((node, change))
        elif change.any():
            place = len(self._dims(node)) - 1 - rule.after(len(self._dims(args["weight"])))
            means = list(self._means(node, self._dims(node)[place]))
            if bias is None and all(mean in names for mean in means):
                for mean in means:
                    self._wanted.setdefault(names[mean], []).append((node, -change))
            else:
                self._refuse([args["input"]], f"its constant is not zero, and {_place(node)} has no bias to add it to")

    def _recurrence(self, node: fx.Node, rule: Recurrence) -> None:
        """Refuse the removed units whose states the others of a recurrent layer read, unless these are zero."""
        if not self._touched(node) or self._same_without(node, self.removal):
            return
        args, known = arguments(node), self.flows[node]
        first = self.flows[args["cells" if rule.last else "first"]]
        nonzero = _along_last(first.kept) | _along_last(known.kept)
        read = self._read_by(args["weight"], _along_last(self.flows[args["gates"]].matters))
        self._refuse_states(node, args["weight"], read, nonzero)
        if args.get("projection") is not None:
            shown = read if rule.last else read | _along_last(known.matters)
            self._refuse_states(node, args["projection"], self._read_by(args["projection"], shown), nonzero)

    def _read_by(self, weight: fx.Node, matter: Tensor) -> Tensor:
        """Return the columns of a matrix that its remaining rows read, of those that matter."""
        rows = matter & ~self.removal.removed_elements(self._dims(weight)[:1])
        return self.flows[weight].kept[rows].any(dim=0)

    def _refuse_states(self, node: fx.Node, weight: fx.Node, read: Tensor, nonzero: Tensor) -> None:
        """Refuse the removed units among the columns of a matrix that are read, and that are not zero as far as known.

        Args:
            node: the recurrence.
            weight: the matrix.
            read: a mask of its columns, (columns,).
            nonzero: the results of the recurrence that are not zero, which may be what the columns stand for.
        """
        columns = self._dims(weight)[1]
        if resolve(self._dims(node)[-1]) is resolve(columns):
            read = read & nonzero
        for axis in set(axes_of(columns)) & self.removal.gone.keys():
            units = units_in(columns, axis)[read]
            which = torch.zeros(axis.size, dtype=torch.bool).index_fill(0, units[units >= 0], True)
            which &= self.removal.gone[axis]
            if which.any():
                self.refused.append((axis, which, "other units of the layer read its constant in the next step"))

    def _means(self, node: fx.Node, channels: Dim) -> Iterator[Any]:
        """Yield the running mean of each batch norm that reads a value or a view of it, and None for other readers."""
        for user in node.users:
            rule, args = rule_of(user.target), arguments(user)
            if isinstance(rule, Reshape | Permute):
                yield from self._means(user, channels)
            elif isinstance(rule, BatchNorm) and args["input"] is node:
                same = list(axes_of(self._dims(node)[1])) == list(axes_of(channels))
                yield args.get("running_mean") if same else None
            else:
                yield None

    def refused_at_other_sizes(self) -> Refused:
        """Return units that inputs of other sizes need, and why: their constant differs, or another part is read."""
        idle = self.units.idle()
        unread = {axis: gone for axis, gone in self.removal.gone.items() if gone.any() and idle[axis].all()}
        if not self.constants and not unread:
            return []
        try:
            units = self.units.at_other_sizes()
        except ValueError as error:  # other sizes cannot be checked
            constant = f"its constant may depend on the sizes of the inputs: {error}"
            length = f"the part of it that is read may depend on the sizes of the inputs: {error}"
            return [
                *((axis, which, constant) for axis, which in self.constants.items()),
                *((axis, which, length) for axis, which in unread.items()),
            ]
        if units is None:
            return []
        ours = {(family.name, family.size): family.axis for family in self.units.families}
        axes = {family.axis: ours.get((family.name, family.size), family.axis) for family in units.families}
        gone = {axis: self.removal.gone[axes[axis]] for axis in axes if axes[axis] in self.removal.gone}
        other = Folding(units, Removal(gone))
        refused = [(axes[axis], mask, reason) for axis, mask, reason in other.refused]
        there = {axes[axis]: mask for axis, mask in units.idle().items()}
        for axis, which in unread.items():  # such as a causal mask, which is read up to the length of the input
            if axis not in there or not there[axis].all():
                refused.append((axis, which, CUT_OFF))
        for axis, which in self.constants.items():
            if (which & ~there.get(axis, ~which)).any():  # constant at these sizes, but not at others
                refused.append((axis, which, DEPENDS))
        for name in dict.fromkeys([*self.shifts, *other.shifts]):
            theirs = {axes[axis]: change for axis, (_, change) in other._parts(name).items()}
            for axis, (which, change) in self._parts(name).items():
                if axis not in theirs or not self._close(change, theirs[axis]):
                    refused.append((axis, which, f"{DEPENDS}, and cannot be added to {name}"))
        return refused

    def _parts(self, name: str) -> dict[Axis, tuple[Tensor, Tensor]]:
        """Return the families whose constants are added to a bias or running mean, each with its units and the sum."""
        found: dict[Axis, tuple[Tensor, Tensor]] = {}
        for node, _ in self._wanted.get(name, ())[:1]:  # all uses ask for the same change
            for axis, units in self._constants(node).items():
                change = self._change(node, Removal({axis: self.removal.gone[axis]}))
                if change is not None:
                    found[axis] = units, change
        return found

    def _constants(self, node: fx.Node) -> dict[Axis, Tensor]:
        """Return the removed units, by family, that a layer reads with an input and a weight that are not zero."""
        args, gone = arguments(node), self.removal.gone
        x = {axis: mask & gone[axis] for axis, mask in self.units.nonzero(args["input"], True).items() if axis in gone}
        if not any(mask.any() for mask in x.values()):  # then a weight need not be read, which is larger
            return {}
        w = self.units.nonzero(args["weight"], varying=True)
        both = {axis: mask & w[axis] for axis, mask in x.items() if axis in w}
        return {axis: units for axis, units in both.items() if units.any()}

    def _change(self, node: fx.Node, going: Removal) -> Tensor | None:
        """Return the contribution of removed units to each bias of a layer; None if it differs from place to place."""
        args, rule = arguments(node), cast(Affine, rule_of(node.target))
        value, dims = self.flows[node].value, self._dims(node)
        place = value.dim() - 1 - rule.after(self.flows[args["weight"]].kept.dim())
        change = torch.zeros(value.shape[place], dtype=value.dtype)
        x = args["input"]
        constants = self.units.nonzero(x)
        if not any((going.gone[axis] & units).any() for axis, units in constants.items() if axis in going.gone):
            return change
        gone = self.flows[x].value * going.removed_elements(self._dims(x))
        full = rule.product(Call(name_of(node.target), args, None), gone, self.flows[args["weight"]].value)
        stays = self.removal.indices(dims[place])
        rows = self.removal.sliced(full, dims).movedim(place, 0).reshape(len(stays), -1)
        if not self._close(rows, rows[:, :1].expand_as(rows)):
            return None
        change[stays] = rows[:, 0]
        return change

    def _same_without(self, node: fx.Node, removal: Removal) -> bool:
        """Return whether the result is the same without the removed units."""

        def left(x: fx.Node) -> Any:
            return self.trace.precision.widened(removal.sliced(self.flows[x].kept, self._dims(x)))

        target: Any = node.target
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), left)
        return self._close(target(*args, **kwargs), left(node))

    def _close(self, a: Tensor, b: Tensor) -> bool:
        scale = max(1.0, *(float(tensor.abs().max()) for tensor in (a, b) if tensor.numel()))
        return a.numel() == 0 or bool((a - b).abs().max() <= self.trace.precision.rounding * scale)

    def _agree(self) -> None:
        """Record a shift if every user of the bias or running mean asks for the same one; otherwise refuse."""
        uses: Counter[str] = Counter()
        for node, name in self.trace.names.items():
            uses[name] += len(node.users)
        for name, several in self._wanted.items():
            first = several[0][1]
            if uses[name] == len(several) and all(self._close(change, first) for _, change in several):
                if first.any():
                    self.shifts[name] = first
                continue
            for node, change in several:
                if change.any():
                    reason = f"its constant cannot be added to {name}, which is used more than once"
                    self._refuse([arguments(node)["input"]], reason)

    def _refuse(self, nodes: list[fx.Node], reason: str, folds: Callable[[Removal], bool] = lambda some: True) -> None:
        """Refuse the removed units that are not zero in any of these values.

        Args:
            nodes: the values; several are the factors of a product.
            reason: why the units stay.
            folds: whether a smaller removal can be folded. Of several families, those that fold alone are not refused,
                unless that is all of them.
        """
        nonzero: dict[Axis, Tensor] = {}
        for node in nodes:
            for axis, mask in self.units.nonzero(node).items():
                nonzero[axis] = nonzero.get(axis, mask) & mask
        gone = self.removal.gone
        going = {axis: mask for axis, mask in nonzero.items() if axis in gone and (mask & gone[axis]).any()}
        alone = [axis for axis in going if len(going) > 1 and not folds(Removal({axis: gone[axis]}))]
        self.refused += [(axis, going[axis], reason) for axis in alone or going]


def _along_last(x: Tensor) -> Tensor:
    """Return where any element along the last dimension is not zero."""
    return x.flatten(0, -2).any(dim=0)


def _place(node: fx.Node) -> str:
    """Return the name of a layer in the model."""
    return module_of(node) or "the model"
