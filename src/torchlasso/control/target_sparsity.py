"""A target for the share of zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from torchlasso._core.specs import unknown
from torchlasso.control.base import check_proximal
from torchlasso.control.steering import Steered
from torchlasso.distributed.sharding import total
from torchlasso.optim import Proximal

SCOPES = ("model", "group")


class TargetSparsity(Steered):
    """Find the λ at which training ends with a share of exact zeros; one knob instead of λ.

    The share is of all penalised weights, or of those of each group. λ of the groups is where the search starts, and
    in the scope of a model their ratios stay. Training has to be as long as ``steps`` says, with a learning rate that
    falls towards its end, as it does under a cosine or a line: then the share is met within about 0.1 point.

    Args:
        optimizer: whose λ is controlled.
        target: the share of zeros, above 0 and below 1; in the scope of groups also one for each penalised group.
        steps: how many steps of the optimizer the whole training has.
        scope: ``"model"``: zeros of all groups count together; ``"group"``: each group meets the target.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its weights. Otherwise λ is lowered where hardly any are left.
        tolerance: how far from its target the share may end without a warning.

    Raises:
        ValueError: the target is not between 0 and 1, or leaves less than a weight for each layer; λ of a group is 0.

    Warns:
        TargetMissed: at the end, if the share is further away than the tolerance; it says why.

    Examples:
        >>> import torch, torchlasso as tl
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> x = torch.randn(200, 50)
        >>> y = x[:, :5].sum(dim=1) + 0.5 * torch.randn(200)
        >>> w = torch.nn.Parameter(torch.zeros(50))
        >>> optimizer = tl.ProxAdam([w], lr=0.02, penalty=tl.L1(), lam=0.01)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        >>> control = TargetSparsity(optimizer, 0.9, steps=1000)
        >>> for _ in range(1000):
        ...     optimizer.zero_grad()
        ...     ((x @ w - y) ** 2).mean().div(2).backward()
        ...     optimizer.step()
        ...     scheduler.step()
        ...     control.step()
        >>> int((w == 0).sum())
        45
    """

    what = "the weights"

    def __init__(
        self,
        optimizer: Proximal,
        target: float | Sequence[float],
        *,
        steps: int,
        scope: str = "model",
        warmup: float = 0.5,
        allow_empty: bool = False,
        tolerance: float = 1e-3,
    ) -> None:
        check_proximal(optimizer, "TargetSparsity")
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        groups = optimizer.penalised_groups()
        units = [list(range(len(groups)))] if scope == "model" else [[i] for i in range(len(groups))]
        targets = list(target) if isinstance(target, Sequence) else [target] * len(units)
        if len(targets) != len(units):
            raise ValueError(f"TargetSparsity: {len(targets)} targets for {len(units)} groups in the scope {scope!r}")
        for unit, wanted in zip(units, targets, strict=True):
            params = [p for i in unit for p in groups[i]["params"]]
            _check(wanted, sum(p.numel() for p in params), 0 if allow_empty else len(params))
        self.sizes = [p.numel() for group in groups for p in group["params"]]  # what is taken out counts as zeros
        super().__init__(
            optimizer,
            units=units,
            shares=[1 - wanted for wanted in targets],
            steps=steps,
            warmup=warmup,
            allow_empty=allow_empty,
            tolerance=tolerance,
        )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "sizes": list(self.sizes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.sizes = list(state["sizes"])

    def _left(self, alive: Sequence[Tensor]) -> list[float]:
        counts = [int(total(p, mask.sum())) for p, mask in zip(self.params, alive, strict=True)]
        return [sum(counts[k] for k in some) / sum(self.sizes[k] for k in some) for some in self.members]


def _check(target: float, weights: int, layers: int) -> None:
    if not isinstance(target, int | float) or not 0 < target < 1:
        raise ValueError(f"TargetSparsity: the target is a share of zeros, above 0 and below 1; got {target!r}")
    if (left := (1 - target) * weights) < layers:
        raise ValueError(
            f"TargetSparsity: {target:.6g} of {weights:,} weights would leave {left:.1f} of them for {layers} layers; "
            f"at most {1 - layers / weights:.6g} can be reached, or any target with allow_empty=True"
        )
