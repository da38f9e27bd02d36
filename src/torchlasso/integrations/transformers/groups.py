"""Penalised parameter groups that keep the weight decay of each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from torchlasso.penalties import Penalty
from torchlasso.selection import LATER, Group, Rule, param_groups


def decayed_groups(
    model: nn.Module, penalty: Penalty | Rule | Sequence[Rule], lam: float, decays: Mapping[nn.Parameter, float]
) -> list[Group]:
    """Return the groups of :func:`torchlasso.param_groups`, divided by the weight decay of the parameters.

    Parameters without a weight decay in ``decays`` are not trained and left out. The blocks of a penalty over several
    parameters stay in one group, so these need the same.

    Args:
        model: the model that is trained.
        penalty, lam: see :func:`torchlasso.param_groups`.
        decays: the weight decay of each parameter that is trained.

    Raises:
        ValueError: the parameters of a block have different ones.
    """
    found: list[Group] = []
    for group in param_groups(model, penalty, lam=lam):
        parts: dict[float, Group] = {}
        for p, name in zip(group["params"], group["names"], strict=True):
            if p in decays:
                empty = {**group, "params": [], "names": [], "weight_decay": decays[p]}
                part = parts.setdefault(decays[p], empty)
                part["params"].append(p)
                part["names"].append(name)
        if group["penalty"] is not None and group["penalty"].over.joint:
            if len(parts) > 1:
                raise ValueError(
                    f"the blocks of {group['penalty']} reach over parameters with and without weight decay, which have "
                    "to be one group: set weight_decay to 0, or penalise rows or columns"
                )
            found += [{**group, "weight_decay": decay} for decay in parts]
        elif LATER in group:  # their decay follows from λ
            found.append(group)
        else:
            found += parts.values()
    return found
