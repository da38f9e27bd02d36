"""The search for λ in the latent form, which latent weights make exact: they say what any λ leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from torchlasso.control.root import solve
from torchlasso.distributed.sharding import local, total_over_shards
from torchlasso.optim import Proximal
from torchlasso.optim.latents import latent_weights, scale_thresholds
from torchlasso.penalties import Penalty
from torchlasso.selection import Group

# What is left follows share + (start − share)·(1 − done)^POWER on the way to the target (Zhu and Gupta 2017), and comes
# as near to that in each step, relative to it.
POWER, NEAR = 3, 0.01
NONE = -60.0  # the logarithm that stands for no λ
# A layer that would become empty gets a threshold that is smaller by this factor, so many times at most.
SMALLER, TIMES = 0.8, 60


def planned(share: float, done: float, start: float = 1.0) -> float:
    """Return the share that is to be left when so much of the search is done.

    Args:
        share: that is to be left at the end.
        done: the share of the search.
        start: what is left at its start.

    Examples:
        >>> [round(planned(0.1, done), 3) for done in (0.0, 0.25, 0.5, 1.0)]
        [1.0, 0.48, 0.213, 0.1]
    """
    return share + (start - share) * (1 - min(done, 1.0)) ** POWER


class Target(Protocol):
    """The part of a controller that a search needs; see :class:`torchlasso.control.steering.Steered`."""

    optimizer: Proximal
    shares: list[float]
    starts: list[float]
    strengths: list[float]
    steps: int
    unit: dict[Tensor, int | None]
    allow_empty: bool

    def _groups(self) -> list[tuple[Group, Penalty]]: ...
    def _others(self, group: Group) -> float: ...
    def _left(self, alive: Sequence[Tensor]) -> list[float]: ...
    def counts(self, p: Tensor) -> bool: ...


class LatentSearch:
    """The search of a controller for the λ under which what is left follows a plan to its target.

    Args:
        target: the controller.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def strengths(self, done: int, every: int) -> list[float]:
        """Choose λ and the cut for the next ``every`` steps, after ``done`` of them.

        A factor f stands for both: λ is multiplied by f, but by 1 at most, and what is left has to be above f times its
        threshold, but once at least. For λ shrinks what it keeps, and the λ of a short training would shrink it to
        nothing.

        Returns:
            The logarithms of the factors on λ.
        """
        target = self.target
        share = (done + every) / target.steps
        wanted = [planned(aim, share, start) for aim, start in zip(target.shares, target.starts, strict=True)]

        def left(factors: Sequence[float]) -> list[float]:
            return self._left(lambda group, unit: self._options(group, every, factors[unit]))

        near = [self._start(unit) for unit in range(len(wanted))]
        factors = solve(left, wanted, near, NEAR)
        for group, unit in self._steered():
            group["cut"] = max(1.0, factors[unit])
        return [math.log(min(factor, 1.0)) if factor else NONE for factor in factors]

    def land(self) -> None:
        """Choose thresholds under which the target is met: the blocks with the largest |z| relative to them stay."""
        target, caps = self.target, dict[Tensor, float]()

        def left(factors: Sequence[float]) -> list[float]:
            return self._left(lambda group, unit: _landing(group, factors[unit], caps))

        factors = solve(left, target.shares, [self._start(unit) for unit in range(len(target.shares))])
        if not target.allow_empty and self._cap(caps, factors):
            factors = solve(left, target.shares, factors)
        for group, unit in self._steered():
            options = _landing(group, factors[unit], caps)
            group["cut"] = options["cut"]
            scale_thresholds(target.optimizer, group, options["factors"])

    def _options(self, group: Group, every: int, factor: float) -> dict[str, Any]:
        lam = float(group.get("initial_lam") or group["lam"]) * self.target._others(group)
        return {"lam": every * min(1.0, factor) * lam, "cut": max(1.0, factor)}

    def _start(self, unit: int) -> float:
        """Return the last factor of a unit."""
        cut = next((float(group["cut"]) for group, each in self._steered() if each == unit), 1.0)
        strength = self.target.strengths[unit]
        return cut if cut > 1 or strength <= NONE else math.exp(strength)

    def _cap(self, caps: dict[Tensor, float], factors: Sequence[float]) -> bool:
        """Find for each layer that would become empty a factor on its thresholds under which it keeps something."""
        for group, unit in self._steered():
            for _ in range(TIMES):
                options = _landing(group, factors[unit], caps)
                weights, scales = latent_weights(self.target.optimizer, group, **options), options["factors"]
                empty = [
                    (p, scale)
                    for p, w, scale in zip(group["params"], weights, scales, strict=True)
                    if self.target.counts(p) and not total_over_shards(p, local(w).count_nonzero())
                ]
                if not empty:
                    break
                caps.update({p: SMALLER * scale for p, scale in empty})
        return bool(caps)

    def _steered(self) -> list[tuple[Group, int]]:
        """Return the groups that are steered, each with the number of its unit."""
        units = [(group, self.target.unit[group["params"][0]]) for group, _ in self.target._groups()]
        return [(group, unit) for group, unit in units if unit is not None]

    def _left(self, thresholds: Callable[[Group, int], dict[str, Any]]) -> list[float]:
        """Return what would be left under other thresholds of the latent weights."""
        steered = {id(group): unit for group, unit in self._steered()}
        masks: list[Tensor] = []
        for group, _ in self.target._groups():
            unit, weights = steered.get(id(group)), group["params"]
            if unit is not None:
                weights = latent_weights(self.target.optimizer, group, **thresholds(group, unit))
            masks += [local(w.detach()) != 0 for w in weights]
        return self.target._left(masks)


def _landing(group: Group, factor: float, caps: dict[Tensor, float]) -> dict[str, Any]:
    """Return factors on the thresholds of the parameters of a group, and a cut, that stand for one factor.

    Args:
        group: of the optimizer.
        factor: below 1 for smaller thresholds, above 1 for a cut.
        caps: factors of parameters that are not to be exceeded.
    """
    factors = [min(factor, 1.0, caps.get(p, 1.0)) for p in group["params"]]
    return {"factors": factors, "cut": max(1.0, factor)}
