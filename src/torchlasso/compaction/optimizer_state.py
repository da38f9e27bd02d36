"""Apply a compaction to the state of an optimizer, to penalties, to their weights and to controllers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.removal import Removal
from torchlasso.graph.axes import Dim
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController
from torchlasso.optim.latent_form import THRESHOLD
from torchlasso.optim.modes import WithModes
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Blocks
from torchlasso.penalties.blocks.base import end_to_end
from torchlasso.selection import FULL_SCALES, Group, full_scales
from torchlasso.weights import named_parameters

Owners = dict[Tensor, tuple[nn.Module, str]]  # the module that has a parameter, and its name there


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise if the blocks of a penalty would change in a smaller model, or if its zeros are not those of the result."""
    if isinstance(optimizer, WithModes) and optimizer.is_training:
        raise ValueError(
            f"shrink_: {optimizer.base.__name__} trains with other weights than the averages of the result, and they "
            "have other zeros; call optimizer.eval() before, and optimizer.train() after it"
        )
    for penalty in optimizer.penalties if isinstance(optimizer, Proximal) else ():
        if penalty is not None and not penalty.over.stable:
            raise ValueError(
                f"shrink_: the blocks of {penalty} would change in a smaller model; penalise whole units, with "
                "torchlasso.Units, or rows, columns, filters, channels or single weights"
            )


def apply_with_optimizers_(
    compaction: Compaction, model: nn.Module, optimizers: Sequence[Optimizer], controllers: Iterable[LambdaController]
) -> None:
    """Apply a compaction to a model, and to its optimizers, penalties and controllers."""
    for optimizer in optimizers:
        check_optimizer(optimizer)
    slicing = Slicing(compaction.removal, compaction.apply_(model))
    owners: Owners = {p: (module, name.rpartition(".")[2]) for name, module, p in named_parameters(model)}
    for optimizer in optimizers:
        _apply(slicing, optimizer, owners)
    for control in controllers:
        control.resize(slicing.sliced)


def _apply(slicing: Slicing, optimizer: Optimizer, owners: Owners) -> None:
    """Make the state and the penalties of an optimizer as small as its parameters."""
    for p, state in optimizer.state.items():
        for key, value in state.items():
            if key != THRESHOLD:
                state[key] = slicing.sliced(p, value)
    if isinstance(optimizer, Proximal):
        optimizer.accept_written()
        for i, group in enumerate(optimizer.param_groups):
            old = optimizer.penalties[i]
            if old is not None:
                optimizer.penalties[i] = new = slicing.penalty(group, old, owners)
                slicing.weights(optimizer.weights, group["params"], old.over, new.over)
                slicing.thresholds(group, optimizer.state, old.over, new.over)


class Slicing:
    """The slicing of tensors that belong to the parameters of a model that became smaller.

    Args:
        removal: the removed units.
        changed: the parameters that became smaller, and their old dimensions.
    """

    def __init__(self, removal: Removal, changed: list[tuple[Tensor, list[Dim]]]) -> None:
        self.removal, self.dims = removal, dict(changed)

    def sliced(self, p: Tensor, value: Any) -> Any:
        """Slice a tensor that has the old shape of a parameter, or size 1 instead of some of its sizes."""
        dims = self.dims.get(p)
        if dims is None or not isinstance(value, Tensor) or value.dim() != len(dims):
            return value
        for place, dim in enumerate(dims):
            if value.shape[place] == dim.size and self.removal.touches(dim):
                value = value.index_select(place, self.removal.indices(dim).to(value.device))
        return value

    def penalty(self, group: Group, penalty: Penalty, owners: Owners) -> Penalty:
        """Return the penalty of a group on blocks without the removed slices; each block keeps its λ.

        If λ depends on the size of a block, the block keeps the λ of its old size, since the objective is the same.
        """
        params = group["params"]
        changed = [i for i, p in enumerate(params) if p in self.dims]
        if not changed:
            return penalty
        fitted = [penalty.fit(*owners[p]) for p in params if p in owners]  # others are not in this part of the model
        if any(other != fitted[0] for other in fitted):
            raise RuntimeError(f"the layers of one group no longer have the same layout, which {penalty} needs")
        before = [self._in_old_shape(p) for p in params]
        new = fitted[0].with_blocks(fitted[0].over.sliced(before, params, lambda i, dim: self._stays(params[i], dim)))
        full = group[FULL_SCALES] = full_scales(group)
        for i in changed:
            ratio = float(penalty.over.weights(before[i])) / float(new.over.weights(params[i]))
            group["lam_scales"][i] *= ratio
            group["thresholds"][i] *= ratio
            full[i] *= ratio
        return new

    def weights(self, weights: dict[Tensor, Any], params: list[Tensor], old: Blocks, new: Blocks) -> None:
        """Keep the factors on λ of the blocks that stay."""
        for tensors in old.together(params):
            kept = weights.get(tensors[0])
            if isinstance(kept, Tensor) and any(p in self.dims for p in tensors):
                weights[tensors[0]] = self._blocks(tensors, kept, old, new)

    def thresholds(self, group: Group, states: dict[Tensor, dict[str, Any]], old: Blocks, new: Blocks) -> None:
        """Keep the thresholds of latent weights where there is one for each block, in the unit that λ has now."""
        for params in old.together(group["params"]):
            owner = next((p for p in params if THRESHOLD in states.get(p, ())), None)
            if owner is None or not any(p in self.dims for p in params):
                continue
            kept = states[owner][THRESHOLD]
            if old.single:
                states[owner][THRESHOLD] = self.sliced(owner, kept)
                continue
            before = [self._in_old_shape(p) for p in params]
            left = self._blocks(params, kept / _units(old, before, kept), old, new)
            ratio = float(old.weights(before[0])) / float(new.weights(params[0]))
            states[owner][THRESHOLD] = ratio * left * _units(new, params, left)

    def _blocks(self, params: Sequence[Tensor], kept: Tensor, old: Blocks, new: Blocks) -> Tensor:
        """Slice a tensor with one number for each block: mark all weights with their block, slice, read the marks."""
        if old.single:
            sliced: Tensor = self.sliced(params[0], kept)
            return sliced
        marks = [torch.zeros(self._in_old_shape(p).shape, dtype=torch.float64) for p in params]
        marked, start = [], 0
        for view in old.views(marks):
            rows, restore = old.as_view().rows(view)
            places = torch.arange(start, start + len(rows), dtype=torch.float64)
            marked.append(restore(places[:, None].expand_as(rows)))
            start += len(rows)
        old.put_(marks, marked)
        left = new.views([self.sliced(p, mark) for p, mark in zip(params, marks, strict=True)])
        found = torch.cat([new.as_view().rows(view)[0][:, 0] for view in left])
        return kept[found.long().to(kept.device)]

    def _in_old_shape(self, p: Tensor) -> Tensor:
        """Return a tensor without data that has the old shape of a parameter."""
        shape = [dim.size for dim in self.dims[p]] if p in self.dims else list(p.shape)
        return torch.empty(shape, device="meta")

    def _stays(self, p: Tensor, dim: int) -> Tensor | None:
        """Return the indices of a dimension that stay; None if all do."""
        touched = p in self.dims and self.removal.touches(self.dims[p][dim])
        return self.removal.indices(self.dims[p][dim]) if touched else None


def _units(over: Blocks, params: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return the factor of each block on a λ of 1."""
    found: list[Any] = over.strengths(params, [1.0] * len(params), torch.ones_like(like))
    return end_to_end(found)
