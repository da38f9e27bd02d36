"""Steering: choose λ such that the share left at the end of training is the target, and is not reached sooner."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from torchlasso._core.arguments import is_number, shown
from torchlasso.control.closing import Closing
from torchlasso.control.forecast import Forecast, bounded_log_odds
from torchlasso.control.latent_search import LatentSearch
from torchlasso.control.misses import FURTHEST, TargetMissed, explanation
from torchlasso.control.protection import protect
from torchlasso.control.rivals import check_alone
from torchlasso.control.tensor_scales import scale_tensors_
from torchlasso.control.unmoved import left_at_start
from torchlasso.distributed.sharding import local
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController, check_steps, initial_lam
from torchlasso.optim.rising import Trial
from torchlasso.selection import Group

# The odds of a weight to be left are about proportional to this power of 1/λ; measured in docs/results, on fixed λ.
ELASTICITY = 0.8
# The share of training after which λ has hardly any effect, since the learning rate has fallen.
HORIZON = 0.9
# Samples of the support in all of training; in a training of fewer steps there is one after each of them.
SAMPLES = 400
# The longest window of the forecast, as a share of them. A weight counts as moving to zero if it would be zero after
# such a share from now, at its speed over the last few samples.
WINDOW, AHEAD, STRIDE = 0.05, 0.1, 5
# The forecast exceeds the final share, in log odds, by this much at the start, and by nothing at the horizon.
EXCESS = 0.4
# How many times as fast as would just do: the error is gone before the last moment.
HASTE = 4.0
# λ rises by no more than this in all of training, or as fast as that in a part of it (a logarithm): where it has no
# effect yet, it may have one soon. Down it may go faster, for what is dead for long does not come back; so it may where
# the learning rate is so low that it does little harm.
FASTEST, FASTEST_DOWN, FASTEST_LATE = 8.0, 24.0, 24.0
# So fast it falls where enough is gone and what is gone does not come back.
FASTEST_STOP = 100.0
# In the latent form a target is missed downwards only by a part of a block, which this share may be.
BLOCK = 0.005
# A parameter that has had no gradient for this share of training, and so many steps at least, does not count.
PATIENCE, LEAST_PATIENCE = 0.05, 10


class Idle(UserWarning):
    """A warning: a parameter is not steered, since it has no gradient or its λ is 0. The message names it."""


class Steered(LambdaController):
    """A controller that steers λ so that a given share of something is left at the end of training.

    λ rises along a line over the first part of training. Throughout, its strength is steered by the error of a
    forecast (:class:`Forecast`) in log odds, just fast enough for the error to be gone when λ has no more effect. It
    is slow while there is time, since zeros that are forced early, at a high learning rate, cost accuracy.

    Args:
        optimizer: the proximal optimizer; λ starts at its present value.
        shares: the share of each unit that is to be left, above 0 and below 1. A unit is a set of groups that are
            steered together, by one strength; :meth:`_unit_of` returns the unit of a group.
        steps: of the whole training.
        warmup: the share of training over which λ rises.
        allow_empty: whether all weights of a layer may become zero.
        tolerance: the largest distance from the target without a warning at the end.
    """

    what = "share"
    idle = "it does not count until it has one"  # the end of the warning of a parameter without a gradient
    block = BLOCK
    for_good = False  # whether dead blocks hardly come back, such as whole units behind a ReLU

    def __init__(
        self,
        optimizer: Proximal,
        *,
        shares: Sequence[float],
        steps: int,
        warmup: float,
        allow_empty: bool,
        tolerance: float,
    ) -> None:
        super().__init__(optimizer)
        name = type(self).__name__
        if self.optimizer.metric.averages_weights:
            raise ValueError(
                f"{name}: {self.optimizer.base.__name__} trains with other weights than the averages that eval() "
                "leaves, so their zeros cannot be steered: give λ, or use an optimizer without averages, such as "
                "ProxAdam"
            )
        check_steps(steps, name)
        if not is_number(warmup) or not 0 <= warmup <= 1:
            raise ValueError(f"{name}: warmup is a share of training, from 0 to 1; got {shown(warmup)}")
        if not all(initial_lam(group) for group, _ in self._groups()):
            raise ValueError(f"{name}: λ of a group is 0; it is a start that is multiplied, such as 1e-4")
        self.shares, self.steps, self.warmup = list(shares), steps, warmup
        self.allow_empty, self.tolerance = allow_empty, tolerance
        self.every = max(1, steps // SAMPLES)
        self.unit: dict[Tensor, int | None] = {}  # of each parameter; None where it is not steered
        self.waiting: dict[Tensor, int] = {}  # the number of steps without a gradient
        self._told: set[Tensor] = set()
        self._has_missed = False  # whether a warning said that the target was missed
        self.acts = False  # whether it has steered since it was made
        self.stuck = False  # whether blocks that were zero did not come back to a target that asks for more of them
        self.samples = min(SAMPLES, steps)
        self._forecast = Forecast([], max(1, math.ceil(WINDOW * self.samples)), STRIDE)
        self._search = LatentSearch(self)
        self.closing: Closing | None = None  # in the default form, where the target can be met exactly
        forms = {group["form"] for group, _ in self._groups()}
        if len(forms) > 1:
            raise ValueError(f"{name}: the groups have the forms {' and '.join(sorted(forms))}; give all of them one")
        self.exact = forms == {"latent"}  # whether λ is found from the latent weights
        # logarithms; thresholds never fall, so the given λ waits for the search, which may find it too large
        self.strengths = [-FURTHEST if self.exact else 0.0] * len(self.shares)
        self._follow()
        self.starts = self._left(left_at_start(self.optimizer, self.params)) if self.exact else [1.0] * len(self.shares)
        self._set()

    @property
    def params(self) -> list[Tensor]:
        """The penalised parameters, in the order of their groups."""
        return [p for group, _ in self._groups() for p in group["params"]]

    @abstractmethod
    def _unit_of(self, group: Group) -> int | None:
        """Return the unit of a new group, or None after a warning if there is none for it."""

    @abstractmethod
    def _left(self, weights: Sequence[Tensor]) -> list[float]:
        """Return the share that is left in each unit, NaN where nothing of a unit counts.

        Args:
            weights: of the local shards, in order.
        """

    def left_under(self, trials: Sequence[Trial]) -> list[float]:
        """Return the share that would be left in each unit, given trials for its groups."""
        weights = {p: local(p.detach()) for p in self.params}
        for trial in trials:
            weights.update(zip(trial.params, trial.weights(), strict=True))
        return self._left(list(weights.values()))

    def steered(self) -> list[tuple[Group, int, float]]:
        """Return the groups that are steered, each with its unit and the λ that is multiplied."""
        found = [(group, self.unit[group["params"][0]]) for group, _ in self._groups()]
        return [(group, unit, initial_lam(group) * self._others(group)) for group, unit in found if unit is not None]

    @property
    def left(self) -> list[float]:
        """The share that is left now, in each unit; NaN where nothing of it is trained."""
        self._follow()
        return self._left_now()

    def _left_now(self) -> list[float]:
        return self._left([local(p.detach()) for p in self.params])

    def counts(self, p: Tensor) -> bool:
        """Return whether a penalised parameter is steered, which ends when it has had no gradient for long."""
        patience = max(LEAST_PATIENCE, PATIENCE * self.steps)
        return self.unit.get(p) is not None and p.requires_grad and self.waiting.get(p, 0) < patience

    def _follow(self) -> None:
        """Add the groups that were added to the optimizer, and forget the groups that are gone."""
        params = self.params
        if len(params) == len(self.unit) and all(p in self.unit for p in params):
            return
        if self.exact:
            scale_tensors_(self._groups(), self.steps, max(self.shares))
        for group, _ in self._groups():
            new = [p for p in group["params"] if p not in self.unit]
            if new and not initial_lam(group):
                self._tell(new, "λ is 0, which is a start that is multiplied; give the group one such as 1e-4")
            unit = self._unit_of(group) if new and initial_lam(group) else None
            self.unit.update(dict.fromkeys(new, unit))
        self.unit = {p: self.unit[p] for p in params}
        if not self.exact:
            self._forecast.follow(params)

    def _watch(self) -> None:
        """Record the parameters without a gradient. If none has one, the gradients were set to None already."""
        if not any(p.grad is not None for group in self.optimizer.param_groups for p in group["params"]):
            return
        for p in self.unit:
            self.waiting[p] = 0 if p.grad is not None else self.waiting.get(p, 0) + 1
        silent = [p for p, unit in self.unit.items() if unit is not None and not self.counts(p)]
        self._tell(silent, f"there is no gradient, so that no λ makes it smaller; {self.idle}")

    def _tell(self, params: Sequence[Tensor], why: str) -> None:
        new = [self.optimizer.name_of(p) for p in params if p not in self._told]
        self._told.update(params)
        if new:
            names = ", ".join(new[:6]) + (f" and {len(new) - 6} more" if len(new) > 6 else "")
            warnings.warn(Idle(f"{type(self).__name__}: {names}: {why}"), stacklevel=5)

    def _control(self) -> None:
        if self.done > self.steps:
            held = all(group["held"] for group, _ in self._groups())
            if not (held or self._has_missed) and self.done % self.every == 0:
                self._look_back()
            return
        check_alone(self)
        self._follow()
        self._watch()
        if self.done % self.every == 0:
            if self.exact:
                self.strengths = self._search.strengths(self.done, self.every)
            elif self.closing is None or not self.closing.held:
                self._forecast.sample()
                self._steer()
            if not self.allow_empty:
                for group, penalty in self._groups():
                    protect(group, penalty)
        self._set()
        if self.closing is not None:
            self.closing.step()
            self._set()
        if self.done == self.steps:
            if self.exact:
                self._search.land()
            self._look_back()

    def _aims(self) -> Sequence[float]:
        """Return the shares that λ is steered to."""
        return self.shares

    def _steer(self) -> None:
        done = self.done / self.steps
        window = max(1, round(self.samples * WINDOW * min(1.0, 2 * (1 - done))))
        togo = max(HORIZON - done, 2 * self.every / self.steps)
        excess = EXCESS * max(0.0, 1 - done / HORIZON) ** 2
        ahead = self.samples * min(AHEAD, togo / 2)  # speeds fall with the learning rate
        aims = self._aims()
        for i, left in enumerate(self._left(self._forecast.weights(window, ahead))):
            group = next((group for group, _ in self._groups() if self.unit[group["params"][0]] == i), None)
            rising = 0.0 if group is None else min(1.0, self._ramp() * self._others(group))
            if not rising or math.isnan(left):
                continue
            error = bounded_log_odds(left) + ELASTICITY * math.log(rising) - excess - bounded_log_odds(aims[i])
            fastest = FASTEST if done < HORIZON else FASTEST_LATE
            pace = min(max(HASTE * error / ELASTICITY / togo, -FASTEST_DOWN), fastest)
            if self.for_good and left <= aims[i] and self.left[i] <= aims[i]:
                pace = -FASTEST_STOP
            change = pace * self.every / self.steps
            self.strengths[i] = min(max(self.strengths[i] + change, -FURTHEST), FURTHEST)

    def _ramp(self) -> float:
        return min(1.0, self.done / (self.warmup * self.steps)) if self.warmup and not self.exact else 1.0

    def _set(self) -> None:
        for group, _ in self._groups():
            unit = self.unit[group["params"][0]]
            if unit is not None:
                self._write(group, math.exp(self.strengths[unit]) * self._ramp())

    def _look_back(self) -> None:
        found = self._misses()
        self._has_missed = bool(found)
        for sentence in found:
            warnings.warn(TargetMissed(sentence), stacklevel=4)

    @property
    def missed(self) -> str | None:
        return "; ".join(self._misses()) or None

    def _misses(self) -> list[str]:
        pairs = zip(self.shares, self.left, strict=True)
        below = max(self.tolerance, self.block) if self.exact else self.tolerance
        # False for NaN: nothing is left to be steered
        missed = [(share, left) for share, left in pairs if left - share > self.tolerance or share - left > below]
        return [explanation(self, share, left) for share, left in missed]

    @property
    def can_lose(self) -> bool:
        """Return False while less is left than the target: λ will fall, and some weights have to come back."""
        if self.closing is not None and self.closing.held:
            return True
        return all(left >= share for left, share in zip(self.left, self.shares, strict=True))

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:
        self._forecast.resize(smaller)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "strengths": list(self.strengths),
            "starts": list(self.starts),
            "stuck": self.stuck,
            "waiting": [self.waiting.get(p, 0) for p in self.params],
            **({} if self.closing is None else self.closing.state_dict()),
            **self._forecast.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._follow()
        self.strengths, self.starts = list(state["strengths"]), list(state.get("starts", self.starts))
        self.stuck = bool(state.get("stuck"))
        self.waiting = dict(zip(self.params, state["waiting"], strict=True))
        self._told = {p for p in self.params if not self.counts(p)}
        self._forecast.load_state_dict(state)
        if self.closing is not None:
            self.closing.load_state_dict(state)
