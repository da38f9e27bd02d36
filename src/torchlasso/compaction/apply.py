"""Apply a compaction to a model or to any copy of it, and record it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.copying import copied
from torchlasso.compaction.candidates import Assignment, assign_
from torchlasso.compaction.layer_sizes import channel_counts, derived_sizes, set_derived_sizes_
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.report import Checked
from torchlasso.compaction.resizing import is_in_graph, recording_sizes, replace_value_, without_weak_references
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Dim
from torchlasso.graph.precision import Precision


@dataclass(frozen=True)
class Compaction:
    """A removal with the new sizes in attributes of modules; it can be applied to the model and any copy of it.

    Attributes:
        units: the units of the model.
        removal: the units to remove.
        numbers: the new values of attributes, except those of torch's modules, which are derived from the tensors.
        checked: how the compaction was verified on a copy.
    """

    units: UnitMap
    removal: Removal
    numbers: Assignment
    checked: Checked = Checked()

    def to_dict(self) -> dict[str, Any]:
        """Return the removed units by the names of their families, and the new sizes, for :meth:`from_dict`."""
        gone = {
            family.name: self.removal.gone[family.axis].nonzero().flatten().tolist()
            for family in self.units.removable
            if self.removal.gone[family.axis].any()
        }
        numbers = [[path, list(keys), value] for (path, keys), value in self.numbers]
        return {"gone": gone, "numbers": numbers}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], units: UnitMap) -> Compaction:
        """Return the recorded compaction for a model of the same shape, without the shifts of biases.

        Raises:
            ValueError: the model is another one.
        """
        axes = {family.name: family.axis for family in units.removable}
        gone = {}
        for name, which in record["gone"].items():
            if name not in axes or max(which) >= axes[name].size:
                raise ValueError(f"the model has no units {name!r} like those that were removed")
            gone[axes[name]] = torch.zeros(axes[name].size, dtype=torch.bool)
            gone[axes[name]][torch.tensor(which)] = True
        numbers: Assignment = [((path, tuple(keys)), value) for path, keys, value in record["numbers"]]
        return cls(units, Removal(gone), numbers)

    def applied_to_copy(self, model: nn.Module) -> nn.Module:
        """Return a smaller copy of a model; the model is not changed, and only what stays is copied."""
        dims = self.units.structure.parameters
        smaller = [p for name, p in model.named_parameters() if any(map(self.removal.touches, dims.get(name, ())))]
        small = copied(model, {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in smaller})
        self.apply_(small)
        return small

    def apply_(self, model: nn.Module, precision: Precision | None = None) -> list[tuple[Tensor, list[Dim]]]:
        """Make a model, or a copy in a precision, smaller; return the tensors that changed and their old dimensions."""
        with recording_sizes(model):
            return self.try_(model, precision)

    def try_(self, model: nn.Module, precision: Precision | None = None) -> list[tuple[Tensor, list[Dim]]]:
        """Make a copy smaller for a trial, without a record of its full sizes."""
        structure = self.units.structure
        before = derived_sizes(model, channel_counts(structure, Removal({})), precision)
        with without_weak_references(model):
            changed = _resize_tensors_(model, structure.parameters, self.removal)
        assign_(model, self.numbers)
        set_derived_sizes_(before, derived_sizes(model, channel_counts(structure, self.removal), precision))
        return changed


def _resize_tensors_(
    model: nn.Module, parameters: dict[str, list[Dim]], removal: Removal
) -> list[tuple[Tensor, list[Dim]]]:
    """Make the parameters and buffers of a model smaller, with their gradients. They stay the same objects.

    Args:
        model: it is changed.
        parameters: the dimensions of its parameters and buffers, by name.
        removal: the units to remove.

    Returns:
        The tensors that became smaller, and their old dimensions.

    Raises:
        RuntimeError: another object holds one of the tensors; the model is unchanged.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    touching = {name: dims for name, dims in parameters.items() if any(map(removal.touches, dims))}
    changing = [name for name in parameters if name in touching or name in removal.shifts]
    for name in changing:
        if weakref.getweakrefcount(tensors[name]):
            raise RuntimeError(
                f"another object holds {name}, so it cannot become smaller; if the model is in a wrapper such as "
                "DistributedDataParallel, take its module and delete the wrapper first"
            )
        if is_in_graph(tensors[name]):
            raise RuntimeError(
                f"an output whose graph is alive holds the parameters, such as {name}: delete it, or compute it under "
                "torch.no_grad()"
            )
    found = []
    for name in changing:
        old, dims = tensors[name], parameters[name]
        new = old.detach()
        if name in removal.shifts:  # in float64, so that the sum is rounded only once
            new = (new.double() + removal.shifts[name].to(new.device)).to(new.dtype)
        replace_value_(old, removal.sliced(new, dims), old.grad if old.grad is None else removal.sliced(old.grad, dims))
        if name in touching:
            found.append((old, dims))
    return found
