"""A model of many branches, with half of the units dead in each: one compaction tests many operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso.compaction import compact

Operator = Callable[[Tensor, Tensor], Tensor]  # a function of the branch's output, and of the input itself

WIDTH = 8
ZERO, CONSTANT = 2, 2  # units that are zero for all inputs, and units that are other constants


class Branch(nn.Module):
    """A layer, an operator, and another layer."""

    def __init__(self, first: nn.Module, operator: Operator, last: nn.Module) -> None:
        super().__init__()
        self.first, self.operator, self.last = first, operator, last

    def forward(self, x: Tensor) -> Tensor:
        y = self.operator(self.first(x).relu(), x)
        return self.last(y if y.is_floating_point() else y.to(x.dtype))


class Branches(nn.Module):
    """All branches read the same input; the first layer of each has dead units."""

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.double().eval()
        for branch in self.branches.values():
            kill(branch.first)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self.branches.values()]


@torch.no_grad()
def kill(layer: Any) -> None:
    """Let the first units of a layer be zero, the next ones constant, and the others vary."""
    layer.weight[: ZERO + CONSTANT] = 0
    layer.bias[:ZERO] = 0
    layer.bias[ZERO : ZERO + CONSTANT] = torch.tensor([0.7, 1.3])


def units_left(model: Branches, example: Tensor, others: list[Tensor]) -> tuple[dict[str, int], dict[str, str]]:
    """Compact a model, compare it at all sizes, and return how many units are left in each branch, and why."""
    small, report = compact(model, example, return_report=True)
    for x in (example, *others):
        with torch.no_grad():
            for name, ours, theirs in zip(model.branches, small(x), model(x), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True, msg=name)
    found = {family.name.split(".")[1]: family for family in report.families if ".first.weight:0" in family.name}
    return {name: found[name].after for name in found}, {name: "; ".join(found[name].why) for name in found}
