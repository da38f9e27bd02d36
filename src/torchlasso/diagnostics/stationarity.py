"""Certificates: how far weights are from a stationary point of loss + λ·penalty, and where λ begins to matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.selection import Group, check_groups, penalised


@dataclass(frozen=True)
class Stationarity:
    """The distance of −gradient to the subdifferential of λ·penalty, over all blocks, in units of λ.

    Zero at a stationary point. For a convex loss that certifies the solution; for a network it says how far from
    stationary the weights are, and nothing about which stationary point they are near.
    """

    max: float
    mean: float


def is_penalised(groups: Iterable[Group]) -> bool:
    """Return whether any λ is above zero and acts, so that a distance can be measured in units of it."""
    groups = [group for group in groups if not group.get("held")]
    return any(bool(lam.max() > 0) if isinstance(lam, Tensor) else lam > 0 for _, _, lam in penalised(groups))


@torch.no_grad()
def stationarity(groups: Iterable[Group]) -> Stationarity:
    """Measure the distance of the penalised weights from a stationary point, from the gradients that they hold.

    Args:
        groups: as :func:`torchlasso.param_groups` gives them, or ``optimizer.penalised_groups()``. Each parameter's
            ``grad`` has to be that of the mean loss over the whole training set, without the penalty. Frozen
            parameters are left out.

    In the latent form of an optimizer such as Adam, λ is measured against each weight's gradients: they are divided by
    the ``scales`` of the groups, √v̂ + ε as it is now. Groups whose zeros are held are left out: λ has no part in them.

    Sharded parameters count as a whole; then every process has to make the call, here and in :func:`lambda_max`.

    Raises:
        ValueError: a parameter has no gradient, or no group has a λ above zero.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([0.5, 0.0, 0.0]))
        >>> w.grad = torch.tensor([-1.0, 0.3, 1.5])
        >>> tl.stationarity([{"params": [w], "penalty": tl.L1(), "lam": 1.0}])
        Stationarity(max=0.5, mean=0.1666...)
    """
    distances = []
    given = [group for group in check_groups("stationarity: groups", groups) if not group.get("held")]
    groups = [trained for group in given if (trained := _without_frozen(group))["params"]]
    for (w, penalty, lam), (grad, _, _) in zip(penalised(groups), penalised(groups, _gradients(groups)), strict=True):
        largest = float(lam.max()) if isinstance(lam, Tensor) else lam  # where it is reweighted, that of a zero
        if largest > 0:
            distances.append((penalty.subdiff_distance(w, grad, lam) / largest).flatten().double())
    if not distances:
        raise ValueError("no group has a penalty with λ above zero, so that there is nothing to measure in units of λ")
    pooled = torch.cat(distances)
    return Stationarity(max=pooled.max().item(), mean=pooled.mean().item())


@torch.no_grad()
def lambda_max(groups: Iterable[Group]) -> float:
    """Return the least λ for which w = 0 is stationary, from the gradients that the parameters hold at w = 0.

    Of use where the output is linear in the penalised weights; in a deeper network every gradient vanishes at w = 0,
    and the result is 0.

    Args:
        groups: as for :func:`stationarity`, the gradients taken with all penalised weights at zero.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> w.grad = torch.tensor([-1.5, 0.3])
        >>> tl.lambda_max([{"params": [w], "penalty": tl.L1(), "lam": 1.0}])
        1.5
    """
    groups = [{**group, "lam": 1.0} for group in check_groups("lambda_max: groups", groups)]
    if any(isinstance(lam, Tensor) for _, _, lam in penalised(groups)):
        raise ValueError("λ has a weight for each block: take lambda_max before the groups are reweighted")
    largest = [
        penalty.lambda_max(grad).item() / float(weight)
        for grad, penalty, weight in penalised(groups, _gradients(groups))
    ]
    if not largest:
        raise ValueError("no group has a penalty, so that no λ matters")
    return max(largest)


def _without_frozen(group: Group) -> Group:
    """Return the group without its frozen parameters; joint blocks count if all of theirs are trained."""
    params = group["params"]
    trained = [i for i, p in enumerate(params) if p.requires_grad]
    if len(trained) == len(params):
        return group
    if group["penalty"] is None or group["penalty"].over.joint:
        return {**group, "params": []}
    weights = group.get("weights", [1.0] * len(params))
    kept = {**group, "params": [params[i] for i in trained], "weights": [weights[i] for i in trained]}
    if "scales" in group:
        kept["scales"] = [group["scales"][i] for i in trained]
    return kept


def _gradients(groups: Iterable[Group]) -> Callable[[Tensor], Tensor]:
    """Return the function from a parameter to its gradient, in the scale in which λ is a threshold on it."""
    scales = {p: scale for group in groups for p, scale in zip(group["params"], group.get("scales", ()), strict=False)}

    def gradient(w: Tensor) -> Tensor:
        if w.grad is None:
            raise ValueError("a penalised parameter has no gradient: run backward() of the mean loss first")
        scale = scales.get(w)
        return w.grad if scale is None else w.grad / scale

    return gradient
