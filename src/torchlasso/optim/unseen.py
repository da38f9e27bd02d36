"""The metric of coordinates that have had no gradient.

Adam's denominator √v̂ + ε is ε for them, and τ = lr/ε: one prox would erase every weight that no batch has reached so
far. For them gradients of size λ(1 + 100/t) are assumed after t updates; docs/mathematics.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import local, shared_like
from torchlasso.selection import Group

State = Mapping[str, Any]
Number = Any  # a float; a tensor on a device whose numbers the host does not wait for


def age_of(state: State) -> int:
    """Return the number of updates that a parameter has had."""
    return int(state.get("step", 0))


# Gradients that were never above this, or above ε, count as none. It is the ε of Adam.
SILENT = 1e-8
# After this many updates, a coordinate without a gradient is half certain to have none.
PATIENCE = 100


def silent_below(eps: Number) -> Number:
    """Return the size below which gradients count as none: about the smaller of ε and 1e-8."""
    return SILENT * eps / (SILENT + eps)


def assumed(lam: Number, age: Number) -> Number:
    """Return the assumed size of gradients that ``age`` updates have not shown.

    With it, the prox moves a single weight by at most lr·t/(t + 100) in update t: hardly at all in the first updates,
    and in the end as far as a gradient of size λ would. Any positive size has the same stationary points, since the
    update itself does not move such a coordinate.
    """
    return lam * (1 + PATIENCE / age)


def floored_unless_seen(root: Tensor, size: Tensor, group: Group, state: State) -> Tensor:
    """Return ``root``, a metric without ε, but at least the assumed size where there has been no gradient.

    Args:
        root: like the parameter.
        size: the size of the gradients so far, like the parameter.
        group, state: of the parameter.
    """
    if torch.finfo(root.dtype).tiny > SILENT**2:
        return root  # in float16, where such a square underflows, a zero does not mean that there was no gradient
    least = assumed(group["lam"], age_of(state))
    own = local(root)  # each process works on its shard: every coordinate is by itself
    return shared_like(root, torch.where(local(size) <= silent_below(group["eps"]), own.clamp_min(least), own))
