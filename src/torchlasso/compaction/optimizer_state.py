"""Optimizer state, penalties, their weights and controllers of a model that becomes smaller in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchlasso.compaction.cutting import Cut
from torchlasso.compaction.removal import Removal
from torchlasso.control import LambdaController
from torchlasso.graph.axes import Dim
from torchlasso.optim import Proximal
from torchlasso.penalties.blocks import Blocks
from torchlasso.penalties.joint import Joint, Piece
from torchlasso.penalties.parts import joint_blocks
from torchlasso.selection import Group, named_parameters

Owners = dict[Tensor, tuple[nn.Module, str]]  # the module that has a parameter, and its name there


def check_blocks(optimizer: Optimizer) -> None:
    """Raise where the blocks of a penalty cannot go along."""
    for penalty in optimizer.penalties if isinstance(optimizer, Proximal) else ():
        over = None if penalty is None else vars(penalty).get("over")
        if isinstance(over, Blocks) and not over.stable:
            raise ValueError(
                f"shrink_: the blocks of {penalty} would be others in a smaller model; penalise whole units, with "
                "torchlasso.Units, or rows, columns, filters, channels or single weights"
            )


def carry_(cut: Cut, model: nn.Module, optimizer: Optimizer, controllers: Iterable[LambdaController]) -> None:
    """Cut a model, and everything that has something for each of its weights."""
    check_blocks(optimizer)
    carried = Carried(cut.removal, cut.apply_(model))
    for p, state in optimizer.state.items():
        for key, value in state.items():
            state[key] = carried.smaller(p, value)
    if isinstance(optimizer, Proximal):
        owners: Owners = {p: (module, name.rpartition(".")[2]) for name, module, p in named_parameters(model)}
        for i, group in enumerate(optimizer.param_groups):
            old = optimizer.penalties[i]
            optimizer.penalties[i] = carried.penalty(group, old, owners)
            carried.weights(optimizer.weights, group["params"], old, optimizer.penalties[i])
    for control in controllers:
        control.resize(carried.smaller)


class Carried:
    """A cut, as applied to the tensors that belong to the parameters.

    Args:
        removal: what went.
        changed: the parameters that are smaller, and their dimensions as they were.
    """

    def __init__(self, removal: Removal, changed: list[tuple[Tensor, list[Dim]]]) -> None:
        self.removal, self.dims = removal, dict(changed)

    def smaller(self, p: Tensor, value: Any) -> Any:
        """Cut a tensor of the shape that a parameter had, or with 1 in the place of some of its sizes."""
        dims = self.dims.get(p)
        if dims is None or not isinstance(value, Tensor) or value.dim() != len(dims):
            return value
        for place, dim in enumerate(dims):
            if value.shape[place] == dim.size and self.removal.touches(dim):
                value = value.index_select(place, self.removal.indices(dim).to(value.device))
        return value

    def penalty(self, group: Group, penalty: Any, owners: Owners) -> Any:
        """The penalty of a group, its blocks without what went, and each with the λ that it had.

        Blocks whose λ goes by their size keep that of the size that they had, since the problem is the same.
        """
        over = joint_blocks(penalty)
        if over is not None:
            return replace(penalty, over=self._joint(group["params"], over))
        changed = [i for i, p in enumerate(group["params"]) if p in self.dims]
        if penalty is None or not changed:
            return penalty
        fitted = [penalty.fit(*owners[p]) for p in group["params"]]
        if any(other != fitted[0] for other in fitted):
            raise RuntimeError(f"the layers of one group are not laid out alike any more, as {penalty} needs it")
        full = group.setdefault("full_scales", [1.0] * len(group["params"]))
        for i in changed:
            p = group["params"][i]
            ratio = _weight(penalty, self._as_it_was(p)) / _weight(fitted[0], p)
            group["lam_scales"][i] *= ratio
            full[i] *= ratio
        return fitted[0]

    def weights(self, weights: dict[Tensor, Tensor], params: list[Tensor], old: Any, new: Any) -> None:
        """Keep the weights of those blocks that stay: each is known by its number, written on all of its weights."""
        over = joint_blocks(old)
        if over is not None and params[0] in weights:
            shapes = [self._as_it_was(p) for p in params]
            kept = weights[params[0]]
            counts = [len(pieces[0].indices) for pieces in over.families]
            numbers = torch.split(torch.arange(len(kept), dtype=torch.float64), counts)
            rows = [
                number[:, None].expand(-1, sum(piece.size(shapes[piece.tensor]) for piece in pieces))
                for number, pieces in zip(numbers, over.families, strict=True)
            ]
            marked = [torch.zeros(shape.shape, dtype=torch.float64) for shape in shapes]
            over.put_(marked, rows)
            left = new.over.gather([self.smaller(p, mark) for p, mark in zip(params, marked, strict=True)])
            weights[params[0]] = kept[torch.cat([matrix[:, 0] for matrix in left]).long().to(kept.device)]
        for p in params if over is None else ():
            if p in weights and p in self.dims:
                weights[p] = self._blocks(p, weights[p], old.over, new.over)

    def _blocks(self, p: Tensor, kept: Tensor, old: Blocks, new: Blocks) -> Tensor:
        if kept.shape == self._as_it_was(p).shape:
            sliced: Tensor = self.smaller(p, kept)
            return sliced
        rows, restore = old.rows(torch.zeros(self._as_it_was(p).shape, dtype=torch.float64))
        marked = restore(torch.arange(len(rows), dtype=torch.float64)[:, None].expand_as(rows))
        return kept[new.rows(self.smaller(p, marked))[0][:, 0].long().to(kept.device)]

    def _as_it_was(self, p: Tensor) -> Tensor:
        """A tensor without data, of the shape that a parameter had."""
        shape = [dim.size for dim in self.dims[p]] if p in self.dims else list(p.shape)
        return torch.empty(shape, device="meta")

    def _joint(self, params: list[Tensor], over: Joint) -> Joint:
        families, scales = [], []
        for pieces, scale in zip(over.families, over.scales or [1.0] * len(over.families), strict=True):
            new = tuple(self._piece(params[piece.tensor], piece) for piece in pieces)
            sizes = sum(piece.size(self._as_it_was(params[piece.tensor])) for piece in pieces)
            left = sum(piece.size(params[piece.tensor]) for piece in new)
            families.append(new)
            scales.append(scale * (sizes / left) ** 0.5 if over.weighted else scale)
        return Joint(over.names, tuple(families), over.weighted, tuple(scales))

    def _piece(self, p: Tensor, piece: Piece) -> Piece:
        if p not in self.dims or not self.removal.touches(self.dims[p][piece.dim]):
            return piece
        stays = self.removal.indices(self.dims[p][piece.dim])
        number = torch.full((self.dims[p][piece.dim].size,), -1)
        number[stays] = torch.arange(len(stays))
        new = number[piece.indices]
        left = new[(new >= 0).any(dim=1)]  # blocks of which something stays; of each as much
        return replace(piece, indices=left[left >= 0].reshape(len(left), -1))


def _weight(penalty: Any, w: Tensor) -> float:
    """Return the factor on λ for each block of a tensor."""
    over = vars(penalty).get("over")
    weight = over.weights(w) if isinstance(over, Blocks) else 1.0
    return float(weight)
