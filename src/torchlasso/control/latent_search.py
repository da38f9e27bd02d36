"""The search for λ in the latent form, which latent weights make exact: they say what any λ leaves."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from torchlasso.control.root import Left, solve
from torchlasso.optim import Proximal
from torchlasso.optim.latents import scale_thresholds
from torchlasso.optim.rising import Rise, Trial, factors_below, growing, rescaled
from torchlasso.selection import Group

NEAR = 0.01  # the distance of what is left from the plan, relative to it, that is near enough
NONE = -60.0  # the logarithm that stands for no λ
# There is no cut in this first share of the search. A threshold is only about as large as one step then. While the rate
# warms up, the next threshold is therefore much larger than foreseen. Units of a layer start at about equal sizes, and
# all of them would go at once.
UNCUT = 0.05
# A layer that would become empty gets a threshold that is smaller by this factor, so many times at most.
SMALLER, TIMES = 0.8, 250
HALVINGS = 20  # of the gap to the largest factor under which the layer keeps something
# A factor is raised by such a share as long as nothing else becomes zero.
MARGINS = (1e-6, 1e-5, 1e-4)


def planned(share: float, done: float, start: float = 1.0) -> float:
    """Return the share that is to be left when so much of the search is done: 1/left goes evenly to its end.

    A constant λ leaves about as much: its thresholds grow by the same amount in every step, and the number of zeros for
    each weight that is left has been seen to grow in proportion to the steps. So λ hardly changes, and the weights that
    stay have most of the training for themselves.

    Args:
        share: that is to be left at the end.
        done: the share of the search.
        start: what is left at its start; where it is less than the share, the plan is the share itself.

    Examples:
        >>> [round(planned(0.1, done), 3) for done in (0.0, 0.1, 0.5, 1.0)]
        [1.0, 0.526, 0.182, 0.1]
    """
    most = 1 / max(start, share)
    return 1 / (most + (1 / share - most) * min(done, 1.0))


def gradual(share: float, done: float, start: float = 1.0) -> float:
    """Return the share that is to be left at least after a cut: that of gradual magnitude pruning.

    Where λ may not become as large as :func:`planned` needs, a cut would choose among weights that have hardly been
    trained. So it waits: share + (start − share)·(1 − done)³, from Zhu and Gupta 2017.

    Args:
        share, done, start: as for :func:`planned`.

    Examples:
        >>> [round(gradual(0.1, done), 3) for done in (0.0, 0.1, 0.5, 1.0)]
        [1.0, 0.756, 0.213, 0.1]
    """
    return share + (max(start, share) - share) * (1 - min(done, 1.0)) ** 3


class Target(Protocol):
    """The part of a controller that a search needs; see :class:`torchlasso.control.steering.Steered`."""

    optimizer: Proximal
    shares: list[float]
    starts: list[float]
    strengths: list[float]
    steps: int
    allow_empty: bool
    stuck: bool

    def steered(self) -> list[tuple[Group, int, float]]: ...
    def left_under(self, trials: Sequence[Trial]) -> list[float]: ...
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

        λ is multiplied by a factor, but by 1 at most: it shrinks what it keeps, and the λ of a short training would
        shrink it to nothing. Where that leaves too much, a cut does the rest, later: what is left has to be above so
        many times its threshold. In the first steps there is no cut.

        Returns:
            The logarithms of the factors on λ.
        """
        target = self.target
        share, steered = (done + every) / target.steps, target.steered()
        pairs = list(zip(target.shares, target.starts, strict=True))
        wanted = [planned(aim, share, start) for aim, start in pairs]
        left = self._left([(growing(target.optimizer, group, every * lam), unit) for group, unit, lam in steered])
        factors = cuts = solve(left, wanted, self._starts(), NEAR)
        if max(factors) > 1 and share <= UNCUT:
            cuts = [min(factor, 1.0) for factor in factors]
        elif max(factors) > 1:
            kept = [max(least, gradual(aim, share, start)) for least, (aim, start) in zip(wanted, pairs, strict=True)]
            cuts = solve(left, kept, self._starts(), NEAR)
        for group, unit, _ in steered:
            group["cut"] = max(1.0, cuts[unit])
        return [math.log(min(factor, 1.0)) if factor else NONE for factor in factors]

    def land(self) -> None:
        """Choose thresholds under which the target is met: the blocks with the largest |z| relative to them stay."""
        target, caps = self.target, dict[Tensor, float]()
        factors = self._landed(caps, self._starts())
        while not target.allow_empty and self._cap(caps, factors):  # more are taken elsewhere, which may empty others
            factors = self._landed(caps, factors)
        if caps and self._is_too_much(caps, factors):
            self._tighten(caps)
            factors = self._landed(caps, factors)
        target.stuck = not all(factors)  # less was left than wanted before anything was taken
        for group, unit, _ in target.steered():
            group["cut"] = max(1.0, factors[unit])
            scale_thresholds(target.optimizer, group, factors_below(group, factors[unit], caps))

    def _starts(self) -> list[float]:
        """Return the last factor of each unit."""
        cuts = {unit: float(group["cut"]) for group, unit, _ in reversed(self.target.steered())}
        pairs = [(cuts.get(unit, 1.0), strength) for unit, strength in enumerate(self.target.strengths)]
        return [cut if cut > 1 or strength <= NONE else math.exp(strength) for cut, strength in pairs]

    def _landed(self, caps: Mapping[Tensor, float], starts: Sequence[float]) -> list[float]:
        """Return the factors on the thresholds under which the target is met, well above the last block that goes."""
        rises = [(rescaled(self.target.optimizer, group, caps), unit) for group, unit, _ in self.target.steered()]
        left = self._left(rises)
        least = found = solve(left, self.target.shares, starts)
        remaining = left(least)
        for margin in MARGINS:  # steps round in another way than the trials do
            further = [factor * (1 + margin) for factor in least]
            same = map(operator.eq, left(further), remaining)
            found = [more if alike else before for more, alike, before in zip(further, same, found, strict=True)]
        return found

    def _left(self, rises: Sequence[tuple[Rise, int]]) -> Left:
        known = dict[tuple[int, ...], list[float]]()

        def left(factors: Sequence[float]) -> list[float]:
            trials = [rise.at(factors[unit]) for rise, unit in rises]
            # the weights that are kept under one factor are among those under a smaller one: as many are the same ones
            counts = tuple(count for trial in trials for count in trial.kept)
            if counts not in known:
                known[counts] = self.target.left_under(trials)
            return known[counts]

        return left

    def _cap(self, caps: dict[Tensor, float], factors: Sequence[float]) -> bool:
        """Find for each layer that would become empty a factor on its thresholds under which it keeps something.

        Returns:
            Whether there were such layers.
        """
        before = dict(caps)
        for group, unit, _ in self.target.steered():
            for _ in range(TIMES):
                empty = self._empty(group, caps, factors[unit])
                if not empty:
                    break
                caps.update({p: SMALLER * min(factors[unit], caps.get(p, math.inf)) for p in empty})
        return caps != before

    def _empty(self, group: Group, caps: Mapping[Tensor, float], factor: float) -> list[Tensor]:
        """Return the parameters whose blocks, of which there have to be some, are all zero under a factor."""
        rise = rescaled(self.target.optimizer, group, caps)
        over, kept = rise.penalty.over, dict(zip(rise.params, rise.at(factor).kept, strict=True))
        sets = over.together(rise.params) if over.carry else []
        owners = [some[i] for some in sets for i in over.owners(some)]
        return [p for p in owners if not kept[p] and self.target.counts(p)]

    def _is_too_much(self, caps: Mapping[Tensor, float], factors: Sequence[float]) -> bool:
        rises = [(rescaled(self.target.optimizer, group, caps), unit) for group, unit, _ in self.target.steered()]
        pairs = zip(self._left(rises)(factors), self.target.shares, strict=True)
        return any(left > share for left, share in pairs)

    def _tighten(self, caps: dict[Tensor, float]) -> None:
        """Raise each factor as far as the layer keeps something."""
        for group, _, _ in self.target.steered():
            for p in [p for p in group["params"] if p in caps]:
                low, high = caps[p], caps[p] / SMALLER
                for _ in range(HALVINGS):
                    middle = (low + high) / 2
                    is_empty = any(other is p for other in self._empty(group, {**caps, p: middle}, middle))
                    low, high = (low, middle) if is_empty else (middle, high)
                caps[p] = low
