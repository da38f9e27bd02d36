"""Cuts: applied to a model or to any copy of it, and recorded."""

from __future__ import annotations

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
from torchlasso.compaction.resizing import noting
from torchlasso.compaction.surgery import cut_
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Dim
from torchlasso.graph.precision import Precision


@dataclass(frozen=True)
class Cut:
    """A plan for a model, which can be applied to any copy of it.

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
        numbers: Assignment = [((path, tuple(keys)), value) for path, keys, value in record["numbers"]]
        return cls(units, Removal(gone), numbers)

    def applied_to_copy(self, model: nn.Module) -> nn.Module:
        """A copy of a model that is cut; the model is not changed, and only what stays is copied."""
        dims = self.units.structure.parameters
        cut = [p for name, p in model.named_parameters() if any(map(self.removal.touches, dims.get(name, ())))]
        small = copied(model, {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in cut})
        self.apply_(small)
        return small

    def apply_(self, model: nn.Module, precision: Precision | None = None) -> list[tuple[Tensor, list[Dim]]]:
        """Cut a model, or a copy in a precision; returns its tensors that are smaller now, and their old dimensions."""
        with noting(model):
            return self.try_(model, precision)

    def try_(self, model: nn.Module, precision: Precision | None = None) -> list[tuple[Tensor, list[Dim]]]:
        """Cut a copy of a model that is only tried: nothing is noted on it of the sizes that it had."""
        structure = self.units.structure
        before = own_numbers(model, uses_of(structure, Removal({})), precision)
        changed = cut_(model, structure.parameters, self.removal)
        assign_(model, self.numbers)
        set_own_(before, own_numbers(model, uses_of(structure, self.removal), precision))
        return changed
