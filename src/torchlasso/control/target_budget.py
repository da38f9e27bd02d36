"""A target for what the model costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torchlasso._core.arguments import check_model, check_positive
from torchlasso.control.base import LambdaController
from torchlasso.control.costs import Bytes, Cost, Flops, Latency, Parameters
from torchlasso.control.live_channels import Probe
from torchlasso.control.steering import Steered
from torchlasso.optim import Proximal
from torchlasso.selection import Group

COSTS: dict[str, type[Cost]] = {"flops": Flops, "parameters": Parameters, "bytes": Bytes, "latency": Latency}


class TargetBudget(Steered):
    """Find the λ at which training ends with a model that costs what was asked for; one knob instead of λ.

    For penalties of whole units, such as ``L1(over=Filters())`` or ``L1(over=Rows())``; the last layer is best left
    alone by a :class:`~torchlasso.Rule`. What counts is not zeros but the channels that they make useless, since their
    values do not vary or nothing reads them: cost = Σ over linear layers and convolutions of their dense cost times the
    share of their weights between channels that live. Norms and all else count in full in parameters, bytes and
    latency, and for nothing in FLOPs.

    What lives is estimated from a sample, as :class:`~torchlasso.control.live_channels.Probe` says, up to 400 times
    in all of training, each time at little more than a forward and a backward pass of the sample. The model stays as
    it is.
    Training has to be as long as ``steps`` says, with a learning rate that falls towards its end; then the target is
    met within about a point or one unit, whichever is more. A start of λ that is far too large is made good less well
    than one that is too small: what is dead early may not come back.

    Exactly one of the four is given: below 1 a share of what the dense model costs, from 1 on a number.

    Args:
        optimizer: whose λ is controlled, and is where the search starts; the ratios of groups stay.
        model: the model that it trains; of a wrapper such as ``DistributedDataParallel`` the module inside.
        example_inputs: what the model is called with, a tensor or a tuple of tensors: a batch of 16 to 64 varied
            samples. Where processes train together, all have to give the same.
        flops: floating-point operations of a forward pass of one sample, 2 for a multiplication and an addition. A
            share is below 1, a number whole and above 1.
        parameters: how many.
        bytes: what the parameters take.
        latency: seconds of a forward pass of ``example_inputs``, as a share only. Each layer is timed at a few widths
            when the controller is made; no two processes find the same, so where several train together the others
            have to load the ``state_dict`` of the first.
        steps: how many steps of the optimizer the whole training has.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its weights. Otherwise λ is lowered where hardly any are left.

    Raises:
        ValueError: not one of the four is given, or it cannot be reached; λ of a group is 0; the parameters are not the
            model's, or are sharded; the model cannot be run on the sample, or a penalised weight is not seen in it.

    Warns:
        TargetMissed: at the end, if the share is more than a point away; it says why.
        Idle: once, of a penalised parameter without a gradient, by its name.

    Examples:
        >>> import torch, torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(256, 10)
        >>> y = x[:, :1] * x[:, 1:2]
        >>> model = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 1))
        >>> rules = [tl.Rule("0.*", tl.L1(over=tl.Rows()))]
        >>> optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=1e-3), lr=0.01)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        >>> control = TargetBudget(optimizer, model, x[:64], flops=0.25, steps=300)
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     ((model(x) - y) ** 2).mean().backward()
        ...     optimizer.step()
        ...     scheduler.step()
        ...     control.step()
        >>> abs(control.left[0] - 0.25) < 0.01
        True
    """

    what = "the cost"
    idle = "what it costs stays, and the others are steered to make up for it"

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
        check_model("TargetBudget: model", model)
        if len(given) != 1:
            raise ValueError(f"TargetBudget: give one of {', '.join(asked)}; got {', '.join(given) or 'none'}")
        [(name, wanted)] = given.items()
        check_positive(f"TargetBudget: {name}", wanted)
        LambdaController.__init__(self, optimizer)  # says so if the optimizer is none whose groups can be asked for
        groups = self._groups()
        # a unit whose bias is zero, too, has no gradient behind a ReLU
        self.for_good = any(penalty.over.names for _, penalty in groups)
        kind = COSTS[name]
        self.what = kind.what
        if wanted >= 1 and not kind.counted:
            raise ValueError(f"TargetBudget: {name} is a share of the dense model's, below 1; got {wanted!r}")
        if wanted == 1 or (wanted > 1 and wanted != int(wanted)):
            raise ValueError(
                f"TargetBudget: {name} is a share of the dense model's, below 1, or a whole number above 1; "
                f"got {wanted!r}"
            )
        try:
            self._probe = Probe(model, [p for group, _ in groups for p in group["params"]], example_inputs)
            self._cost = kind.measured(self._probe)
        except ValueError as error:
            raise ValueError(f"TargetBudget: {error}") from error
        super().__init__(
            optimizer,
            shares=[_share(name, wanted, self._cost, 0.0 if allow_empty else self._cost.least(self._probe.sites))],
            steps=steps,
            warmup=warmup,
            allow_empty=allow_empty,
            tolerance=0.01,
        )

    def _unit_of(self, group: Group) -> int:
        return 0

    def _left(self, alive: Sequence[Tensor]) -> list[float]:
        try:
            self._probe.follow(self.params)
        except ValueError as error:
            raise ValueError(f"TargetBudget: {error}") from error
        return [self._cost.left(self._probe(alive), self._probe.sites) / self._cost.dense]

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:
        super().resize(smaller)
        self._probe.refresh()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cost": self._cost.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._cost = type(self._cost).restored(state["cost"])


def _share(name: str, wanted: float, cost: Cost, least: float) -> float:
    share = wanted / cost.dense if wanted >= 1 else wanted
    if share >= 1:
        raise ValueError(
            f"TargetBudget: {name}={wanted:,g} leaves nothing to save: the dense model has {cost.dense:,g}"
        )
    if share <= (fixed := cost.fixed / cost.dense):
        raise ValueError(
            f"TargetBudget: {name}={wanted:,g} cannot be reached: {fixed:.4g} of it has no channels to lose"
        )
    if share * cost.dense < least:
        raise ValueError(
            f"TargetBudget: {name}={wanted:,g} cannot be reached: the dense model has {cost.dense:,g}, and one channel "
            f"in each layer {least:,g}"
        )
    return share
