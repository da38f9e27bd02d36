"""A removal: the units to remove, and the changes to the remaining tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, Dim, Sum, axes_of, count_of, indices, resolve


@dataclass(frozen=True)
class Removal:
    """The units to remove from a model.

    Attributes:
        gone: for each removable axis, a mask of the units to remove.
        shifts: the tensors to add to parameters and buffers, by name, in their old shapes.
        stays: for removable axes, the reasons why idle units stay.
    """

    gone: dict[Axis, Tensor]
    shifts: dict[str, Tensor] = field(default_factory=dict)
    stays: dict[Axis, list[str]] = field(default_factory=dict)

    def indices(self, dim: Dim) -> Tensor:
        """Return the indices of a dimension that stay."""
        return indices(dim, self._kept)

    def _kept(self, axis: Axis) -> Tensor:
        return (~self.gone[axis]).nonzero().flatten() if axis in self.gone else torch.arange(axis.size)

    def size(self, dim: Dim) -> int:
        """Return the number of indices of a dimension that stay."""
        dim = resolve(dim)
        if isinstance(dim, Axis):
            return int((~self.gone[dim]).sum()) if dim in self.gone else dim.size
        sizes = map(self.size, dim.parts)
        return sum(sizes) if isinstance(dim, Sum) else math.prod(sizes)

    def touches(self, dim: Dim) -> bool:
        """Return whether a dimension becomes smaller."""
        return any(axis in self.gone and bool(self.gone[axis].any()) for axis in axes_of(dim))

    def sliced(self, tensor: Tensor, dims: list[Dim]) -> Tensor:
        """Return the remaining part of a tensor with these dimensions."""
        for place, dim in enumerate(dims):
            if self.touches(dim):
                tensor = tensor.index_select(place, self.indices(dim).to(tensor.device))
        return tensor

    def removed_elements(self, dims: list[Dim]) -> Tensor:
        """Return a mask of the elements that are removed from a tensor with these dimensions."""
        mask = torch.zeros([dim.size for dim in dims], dtype=torch.bool)
        for place, dim in enumerate(dims):
            if self.touches(dim):
                here = torch.ones(dim.size, dtype=torch.bool)
                here[self.indices(dim)] = False
                mask |= here.reshape(-1, *[1] * (len(dims) - place - 1))
        return mask

    def keep(self, axis: Axis, which: Tensor, reason: str) -> None:
        """Keep units, for a reason."""
        if (self.gone[axis] & which).any():
            self.gone[axis] = self.gone[axis] & ~which
            reasons = self.stays.setdefault(axis, [])
            if reason not in reasons:
                reasons.append(reason)


def even_out(removal: Removal, multiple_of: int | Mapping[Axis, int]) -> None:
    """Keep idle units where at least one unit, a multiple, or the same number as on another axis has to stay.

    Args:
        removal: the removal; it is changed.
        multiple_of: the number of units of each family stays a multiple of this, one for all or by axis.
    """
    together: dict[Axis, list[Axis]] = {}
    for axis in removal.gone:
        together.setdefault(count_of(axis), []).append(axis)
    for axes in together.values():
        kept = {axis: int((~removal.gone[axis]).sum()) for axis in axes}
        most = max(1, *kept.values())
        every = multiple_of if isinstance(multiple_of, int) else max(multiple_of.get(axis, 1) for axis in axes)
        wanted = min(axes[0].size, -(-most // every) * every)
        for axis in axes:
            if kept[axis] < wanted:
                spare = torch.zeros(axis.size, dtype=torch.bool)
                spare[removal.gone[axis].nonzero().flatten()[: wanted - kept[axis]]] = True
                removal.keep(axis, spare, _why(most, wanted, max(kept.values()), every))


def _why(most: int, wanted: int, kept: int, multiple_of: int) -> str:
    if wanted > most:
        enough = "make a" if wanted % multiple_of == 0 else "are fewer than the next"
        return f"{wanted} {enough} multiple of {multiple_of}"
    return "parts of one split or recurrent layer keep equally many units" if kept else "one unit has to stay"
