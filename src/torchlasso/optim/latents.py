"""Latent weights as controllers of λ see them: the weights that other thresholds would give."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchlasso.optim.base import Proximal
from torchlasso.optim.form import Updated
from torchlasso.optim.forms import LATENT_FORM
from torchlasso.penalties.blocks import Strength
from torchlasso.penalties.cut import cut_prox
from torchlasso.selection import Group


@torch.no_grad()
def latent_weights(
    optimizer: Proximal, group: Group, factors: Sequence[float] | None = None, lam: float = 0.0, cut: float = 1.0
) -> list[Tensor]:
    """Return the weights of a group in the latent form under other thresholds than the present ones.

    Args:
        optimizer: that has the group.
        group: one of its ``param_groups``, penalised and in the latent form.
        factors: by which the thresholds of each parameter are multiplied; without them, by 1.
        lam: λ under which they grow once more, by the length of the last update.
        cut: how many times its threshold the magnitude of a block has to be for it to stay.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.3]))
        >>> optimizer = tl.ProxSGD([w], lr=1.0, penalty=tl.L1(), lam=0.2, form="latent")
        >>> w.grad = torch.zeros(2)
        >>> optimizer.step()
        >>> w.data, latent_weights(optimizer, optimizer.param_groups[0], lam=0.2)[0]
        (tensor([0.8000, 0.1000]), tensor([0.6000, 0.0000]))
    """
    updated = updated_in(optimizer, group)
    each, found = updated.penalty.as_view(), dict[Tensor, Tensor]()
    factors = factors or [1.0] * len(group["params"])
    for some in LATENT_FORM.sets(updated, lam):
        columns = updated.penalty.over.views(some.latents), some.owners_of(updated.penalty.over)
        rows = zip(*columns, some.thresholds, some.growth, strict=True)
        new = [cut_prox(each, z, factors[i] * h + more, cut) for z, i, h, more in rows]
        targets = [p.detach().clone() for p in some.params]
        updated.penalty.over.put_(targets, new)
        found.update(zip(some.params, targets, strict=True))
    return [found[p] for p in group["params"]]


@torch.no_grad()
def scale_thresholds(optimizer: Proximal, group: Group, factors: Sequence[float]) -> None:
    """Multiply the thresholds of each parameter of a group in the latent form, and let the weights follow."""
    LATENT_FORM.rescaled_(updated_in(optimizer, group), factors)
    optimizer.accept_written()


def updated_in(optimizer: Proximal, group: Group) -> Updated:
    """Return a group with the length of each parameter's last update."""
    index = next(i for i, each in enumerate(optimizer.param_groups) if each is group)
    penalty = optimizer.penalties[index]
    if penalty is None or group["form"] != "latent":
        raise ValueError("the group has no latent weights: it is not penalised, or not in the latent form")

    def length_of(i: int) -> Strength | None:
        p, metric = group["params"][i], optimizer.metric
        state = optimizer.state.get(p)
        if not state:
            return None
        if metric.sees and p.grad is None:
            return 0.0
        return metric.reach(group, {**state, **metric.seen(p, group)}, float(group["gains"][i]))

    return Updated(group, penalty, length_of, {}, optimizer.state, optimizer.weights)
