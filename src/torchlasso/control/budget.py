"""A target for what the model costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torchlasso.control.base import LambdaController
from torchlasso.control.costs import Bytes, Cost, Flops, Latency, Parameters
from torchlasso.control.probe import Probe
from torchlasso.control.steering import Steered
from torchlasso.optim import Proximal

COSTS: dict[str, tuple[type[Cost], str]] = {
    "flops": (Flops, "the FLOPs"),
    "parameters": (Parameters, "the parameters"),
    "bytes": (Bytes, "the bytes"),
    "latency": (Latency, "the latency"),
}


class TargetBudget(Steered):
    """Find the λ at which training ends with a model that costs what was asked for; one knob instead of λ.

    For penalties of whole units, such as ``L1(over=Filters())`` or ``L1(over=Rows())``. What counts is not zeros but
    the channels that they make useless, since their values do not vary or nothing reads them: a layer costs its dense
    cost times the share of weights between channels that live. Norms and what else is no linear layer or convolution
    count as they are in parameters, bytes and latency, and for nothing in FLOPs.

    What lives is estimated from a sample, up to 400 times in a training, each at little more than a forward and a
    backward pass of it; :class:`~torchlasso.control.probe.Probe` says how. The model stays as it is. Training has to be
    as long as ``steps`` says, with a learning rate that falls towards its end.

    Exactly one of the four is given: below 1 a share of what the dense model costs, from 1 on a number.

    Args:
        optimizer: whose λ is controlled, and is where the search starts; the ratios of groups stay.
        model: the model that it trains; of a wrapper such as ``DistributedDataParallel`` the module inside.
        example_inputs: what the model is called with, a tensor or a tuple of tensors: a batch of 16 to 64 varied
            samples. Where processes train together, all have to give the same.
        flops: floating-point operations of a forward pass of one sample, 2 for a multiplication and an addition.
        parameters: how many.
        bytes: what the parameters take.
        latency: seconds of a forward pass of ``example_inputs``, as a share only. Each layer is timed at a few widths
            when the controller is made.
        steps: how many steps of the optimizer the whole training has.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its weights. Otherwise λ is lowered where hardly any are left.

    Raises:
        ValueError: not one of the four is given, or it cannot be reached; λ of a group is 0; the parameters are not the
            model's, or are sharded; the model cannot be run on the sample, or a penalised weight is not seen in it.

    Warns:
        TargetMissed: at the end, if the share is more than a point away; it says why.

    Example:
        >>> import torch, torchlasso as tl
    """

    what = "the cost"

    def __init__(
        self,
        optimizer: Proximal,
        model: nn.Module,
        example_inputs: Tensor | tuple[Tensor, ...],
        *,
        flops: float | None = None,
        parameters: float | None = None,
        bytes: float | None = None,
        latency: float | None = None,
        steps: int,
        warmup: float = 0.5,
        allow_empty: bool = False,
    ) -> None:
        asked = {"flops": flops, "parameters": parameters, "bytes": bytes, "latency": latency}
        given = {name: value for name, value in asked.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"TargetBudget: give one of {', '.join(asked)}; got {', '.join(given) or 'none'}")
        [(name, wanted)] = given.items()
        if not 0 < wanted < math.inf:
            raise ValueError(f"TargetBudget: {name} must be a finite number above 0; got {wanted!r}")
        LambdaController.__init__(self, optimizer)  # says so if the optimizer is none whose groups can be asked for
        groups = self._groups()
        kind, self.what = COSTS[name]
        try:
            self._probe = Probe(model, [p for group, _ in groups for p in group["params"]], example_inputs)
            self._cost = kind.measured(self._probe)
        except ValueError as error:
            raise ValueError(f"TargetBudget: {error}") from error
        super().__init__(
            optimizer,
            units=[list(range(len(groups)))],
            shares=[_share(name, wanted, self._cost)],
            steps=steps,
            warmup=warmup,
            allow_empty=allow_empty,
            tolerance=0.01,
        )

    def _left(self, alive: Sequence[Tensor]) -> list[float]:
        return [self._cost.left(self._probe(alive)) / self._cost.dense]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cost": self._cost.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._cost = type(self._cost).restored(state["cost"])


def _share(name: str, wanted: float, cost: Cost) -> float:
    if wanted >= 1 and name == "latency":
        raise ValueError(f"TargetBudget: latency is a share of the dense model's, below 1; got {wanted!r}")
    share = wanted / cost.dense if wanted >= 1 else wanted
    if share >= 1:
        raise ValueError(
            f"TargetBudget: {name}={wanted:,g} leaves nothing to save: the dense model has {cost.dense:,g}"
        )
    if share * cost.dense <= cost.fixed:
        least = cost.fixed / cost.dense
        raise ValueError(
            f"TargetBudget: {name}={wanted:,g} cannot be reached: {least:.4g} of it is in no penalised layer"
        )
    return share
