"""A target for the cost of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torchlasso._core.arguments import check_model, check_positive, only_given
from torchlasso.control.closing import MARGIN, Closing
from torchlasso.control.costs import Bytes, Cost, Flops, Latency, Parameters
from torchlasso.control.least_left import names_of_sparing
from torchlasso.control.live_channels import Probe
from torchlasso.control.ranking import Ranking
from torchlasso.control.removable import Removable
from torchlasso.control.sites import LiveParts
from torchlasso.control.steering import Steered
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController, check_steps
from torchlasso.selection import Group

COSTS: dict[str, type[Cost]] = {"flops": Flops, "parameters": Parameters, "bytes": Bytes, "latency": Latency}
TIMES = 100  # at which the gap to the target would be closed in all of training; it is in a part of it
NEAR = 0.1  # the share of the tolerance that is near enough to the target for not trying other blocks


class Uncounted(UserWarning):
    """A warning: units that compaction cannot remove count as saved. The message says why they are not known."""


class TargetBudget(Steered):
    """A search for the λ at which training ends with a model of at most a given cost: a target instead of λ.

    Use it with penalties of whole units, such as ``L1(over=Filters())`` or ``L1(over=Rows())``, and leave the last
    layer out with a :class:`~torchlasso.Rule`. The cost does not count zeros but live channels: cost = Σ over linear
    layers and convolutions of their dense cost times the share of their weights between live channels. A channel is
    dead if its value does not vary or nothing reads it. Products of two activations, such as those of attention, count
    by their live rows, columns and heads in FLOPs. Norms have no FLOPs; their parameters and those of embeddings count
    by their live channels. Everything else counts in full, such as recurrent layers.

    Channels that compaction cannot remove count in full, such as those of an output, or of a layer whose size is
    written into the model's code. Where the graph of operators does not show them, they are found by an experiment when
    the controller is made: units of a copy become zero, and the copy is compacted.

    The live channels are estimated from a sample (:class:`~torchlasso.control.live_channels.Probe`) some 400 to 600
    times in the whole training, each time for little more than a forward and a backward pass of the sample. Train for
    ``steps`` steps, 100 at least, with a learning rate that falls towards the end. Then the cost is at most the target,
    and less by one unit at most.

    In the default form, λ is steered towards a little more. From 60 to 90 % of training the cost may not exceed a line
    that falls to the target: where it does, the blocks that the prox would make zero under the least λ become zero. The
    last tenth of training holds the zeros, and the other weights move without a penalty.

    Give exactly one of the four targets: below 1 it is a share of the dense model's cost, above 1 a number.

    Args:
        optimizer: the proximal optimizer; the search starts at its λ, and the ratios of its groups stay.
        model: the model that it trains; of a wrapper such as ``DistributedDataParallel`` the module inside.
        example_inputs: the model's inputs, a tensor or a tuple of tensors: a batch of 16 to 64 varied samples. Where
            processes train together, all have to give the same.
        flops: floating-point operations of a forward pass of one sample, 2 for a multiplication and an addition. A
            share is below 1, a number whole and above 1.
        parameters: the number of parameters.
        bytes: the bytes of the parameters.
        latency: seconds of a forward pass of ``example_inputs``, as a share only. Each layer is timed at a few widths
            when the controller is made; no two processes find the same, so where several train together the others
            have to load the ``state_dict`` of the first.
        steps: the number of steps of the optimizer in the whole training.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its weights. Otherwise λ is lowered where hardly any are left.

    Raises:
        ValueError: none or several of the four are given, or the target cannot be reached, as under penalties over
            ``NM`` or ``FanIn`` alone, which remove no outputs, or where compaction leaves more; λ of a group is 0; the
            parameters are not the model's, or are sharded; the model cannot be run on the sample, or a penalised weight
            does not take part in that run.

    Warns:
        TargetMissed: at the end, if the share is more than a point away; it says why.
        Uncounted: at once, if the model cannot be compacted, as where it cannot be exported.
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
        check_model("TargetBudget: model", model)
        name, wanted = only_given("TargetBudget", asked)
        check_positive(f"TargetBudget: {name}", wanted)
        check_steps(steps, "TargetBudget")  # before the units are searched, which takes seconds
        LambdaController.__init__(self, optimizer)  # raises an error if the optimizer is not a proximal one
        groups = self._groups()
        # behind a ReLU, a unit with a zero bias has no gradient
        self.for_good = any(penalty.over.joint for _, penalty in groups)
        kind = COSTS[name]
        self._wanted = f"{name}={float(wanted):.12g}"
        self.what = kind.what
        if wanted >= 1 and not kind.counted:
            raise ValueError(f"TargetBudget: {name} is a share of the dense model's, below 1; got {wanted!r}")
        if wanted == 1 or (wanted > 1 and wanted != int(wanted)):
            raise ValueError(
                f"TargetBudget: {name} is a share of the dense model's, below 1, or a whole number above 1; "
                f"got {wanted!r}"
            )
        if groups and all(penalty.over.spares for _, penalty in groups):
            over = names_of_sparing([{"penalty": penalty} for _, penalty in groups])
            raise ValueError(
                f"TargetBudget: the penalties are over {over}, which always leaves weights of every output, so that "
                "no λ removes outputs; use whole units, such as Units, Rows or Filters, or TargetSparsity"
            )
        try:
            self._probe = Probe(model, [p for group, _ in groups for p in group["params"]], example_inputs)
            self._cost = kind.measured(self._probe)
        except ValueError as error:
            raise ValueError(f"TargetBudget: {error}") from error
        self._removable = self._found(None)
        super().__init__(
            optimizer,
            shares=[self._share(name, wanted, 0 if allow_empty else 1)],
            steps=steps,
            warmup=warmup,
            allow_empty=allow_empty,
            tolerance=0.01,
        )
        if not self.exact and all(penalty.over.of_weights for _, penalty in groups):
            self.closing = Closing(self, every=max(1, steps // TIMES))

    def _found(self, fixed: Mapping[str, str] | None) -> Removable | None:
        """Return the units that compaction can remove; None after a warning if it cannot make the model smaller."""
        probe = self._probe
        try:
            return Removable.of(probe.model, probe.inputs, probe.sites, fixed)
        except ValueError as error:
            why = f"TargetBudget: all dead channels count as saved, although compact will fail: {error}"
            warnings.warn(Uncounted(why), stacklevel=3)
            return None

    def _kept(self, found: LiveParts) -> LiveParts:
        return found if self._removable is None else self._removable.kept(found.layers)

    def _share(self, name: str, wanted: float, channels: int) -> float:
        """Return the target as a share, if it can be reached with so many live channels in each layer."""
        cost, sites = self._cost, self._probe.sites
        share = wanted / cost.dense if wanted >= 1 else wanted
        if share >= 1:
            raise ValueError(
                f"TargetBudget: {name}={wanted:,g} leaves nothing to save: the dense model has {cost.dense:,g}"
            )
        least = self._kept(LiveParts([site.with_live(channels) for site in sites]))
        left = cost.left(least, sites)
        if share * cost.dense <= cost.fixed <= left:
            fixed = cost.fixed / cost.dense
            raise ValueError(
                f"TargetBudget: {name}={wanted:,g} cannot be reached: {fixed:.4g} of it has no channels to lose"
            )
        if share * cost.dense < left:
            costs = dict(zip((site.name for site in sites), cost.left_in_layers(least, sites), strict=True))
            why = "" if self._removable is None else self._removable.reasons(costs)
            raise ValueError(
                f"TargetBudget: {name}={wanted:,g} cannot be reached: the dense model has {cost.dense:,g}, and compact "
                f"leaves {left:,g} ({left / cost.dense:.4g}) at least, since it keeps one unit of each family{why}"
            )
        return share

    def _unit_of(self, group: Group) -> int:
        return 0

    def _left(self, weights: Sequence[Tensor]) -> list[float]:
        try:
            self._probe.follow(self.params)
        except ValueError as error:
            raise ValueError(f"TargetBudget: {error}") from error
        return [self._cost.left(self._kept(self._probe(weights)), self._probe.sites) / self._cost.dense]

    def _aims(self) -> Sequence[float]:
        if self.closing is None:
            return self.shares
        return [min((1 + MARGIN) * share, (1 + share) / 2) for share in self.shares]  # the rest is closed afterwards

    def beyond(self, unit: int, ranking: Ranking, most: float) -> Tensor:
        weights = {p: p.detach() for p in self.params}

        def left(blocks: Tensor) -> float:
            return self._left(list({**weights, **ranking.without(blocks)}.values()))[unit]

        if most > (share := self.shares[unit]):
            fewest = ranking.least(ranking.fewest(left, most))
            return fewest if left(fewest) >= share else fewest[:-1]
        return ranking.nearest(left, most, NEAR * self.tolerance)

    def is_met(self, unit: int, left: float) -> bool:
        return 0 <= self.shares[unit] - left <= self.tolerance

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:
        super().resize(smaller)
        self._probe.refresh()
        if self._removable is not None:
            self._removable = self._found(self._removable.fixed)

    @property
    def described(self) -> str:
        return f"TargetBudget({self._wanted})"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cost": self._cost.state_dict(), "fixed": self._fixed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._cost = type(self._cost).restored(state["cost"])
        fixed = state.get("fixed")
        if fixed is not None and fixed != self._fixed:
            self._removable = self._found(fixed)

    @property
    def _fixed(self) -> dict[str, str] | None:
        return None if self._removable is None else dict(self._removable.fixed)
