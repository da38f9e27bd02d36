"""Apply a compaction to a model or to any copy of it, and record it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.copying import copied
from torchlasso.compaction.attributes import own_numbers, set_own_, uses_of
from torchlasso.compaction.candidates import Assignment, assign_
from torchlasso.compaction.removal import Removal
from torchlasso.compaction.report import Checked
from torchlasso.compaction.resizing import become_, noting
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Dim
from torchlasso.graph.precision import Precision


@dataclass(frozen=True)
class Compaction:
    """A removal with the numbers that it needs in attributes of modules; it can be applied to any copy of the model.

    Attributes:
        units: of the model.
        removal: what goes.
        numbers: what attributes of modules become that are not torch's own.
        checked: how it was tried on a copy.
    """

    units: UnitMap
    removal: Removal
    numbers: Assignment
    checked: Checked = Checked()

    def to_dict(self) -> dict[str, Any]:
        """Return the removed units by the names of families, and the numbers, as :meth:`from_dict` needs them."""
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
                raise ValueError(f"the model has no units {name!r} as those that were taken out")
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
        with noting(model):
            return self.try_(model, precision)

    def try_(self, model: nn.Module, precision: Precision | None = None) -> list[tuple[Tensor, list[Dim]]]:
        """Make a copy smaller that is only tried: its full sizes are not noted on it."""
        structure = self.units.structure
        before = own_numbers(model, uses_of(structure, Removal({})), precision)
        changed = _resize_tensors_(model, structure.parameters, self.removal)
        assign_(model, self.numbers)
        set_own_(before, own_numbers(model, uses_of(structure, self.removal), precision))
        return changed


def _resize_tensors_(
    model: nn.Module, parameters: dict[str, list[Dim]], removal: Removal
) -> list[tuple[Tensor, list[Dim]]]:
    """Make the parameters and buffers of a model smaller, each staying the object that it is, with its gradient.

    Args:
        model: is changed.
        parameters: the dimensions of its parameters and buffers, by name.
        removal: what goes.

    Returns:
        The tensors that are smaller now, and their dimensions.

    Raises:
        RuntimeError: something holds on to one of them; nothing is changed then.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    touching = {name: dims for name, dims in parameters.items() if any(map(removal.touches, dims))}
    changing = [name for name in parameters if name in touching or name in removal.shifts]
    for name in changing:
        if weakref.getweakrefcount(tensors[name]):
            raise RuntimeError(
                f"{name} is held by something else and cannot become smaller; of a wrapper such as "
                "DistributedDataParallel take the module and delete the wrapper first"
            )
    found = []
    for name in changing:
        old, dims = tensors[name], parameters[name]
        new = old.detach()
        if name in removal.shifts:  # in float64, so that a constant that is rounded is rounded once
            new = (new.double() + removal.shifts[name].to(new.device)).to(new.dtype)
        become_(old, removal.sliced(new, dims), old.grad if old.grad is None else removal.sliced(old.grad, dims))
        if name in touching:
            found.append((old, dims))
    return found
