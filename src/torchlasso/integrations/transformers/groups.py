"""Penalised parameter groups that keep the weight decay of each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from torchlasso.optim.buckets import DECAY_SCALES
from torchlasso.penalties import Penalty
from torchlasso.selection import LATER, Group, Rule, param_groups


def decayed_groups(
    model: nn.Module, penalty: Penalty | Rule | Sequence[Rule], lam: float, decays: Mapping[nn.Parameter, float]
) -> list[Group]:
    """Return the groups of :func:`torchlasso.param_groups`, divided by the weight decay of the parameters.

    Parameters without a weight decay in ``decays`` are not trained and left out. The blocks of a penalty over several
    parameters stay in one group, with the share of the weight decay that each of them has.

    Args:
        model: the model that is trained.
        penalty, lam: see :func:`torchlasso.param_groups`.
        decays: the weight decay of each parameter that is trained.
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
            most = max(parts, default=0.0)
            shares = [decays.get(p, 0.0) / most if most else 0.0 for p in group["params"]]
            scales = {DECAY_SCALES: shares} if len(parts) > 1 else {}
            found += [{**group, "weight_decay": most, **scales}] if parts else []
        elif LATER in group:  # their decay follows from λ
            found.append(group)
        else:
            found += parts.values()
    return found
