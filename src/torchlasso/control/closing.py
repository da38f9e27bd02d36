"""The end of a search in the default form, which closes the gap between what λ leaves and the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from torchlasso.control.ranking import Ranking
from torchlasso.optim import Proximal
from torchlasso.selection import Group

# From a share of training on, in which the rate has fallen but blocks still come and go, what is left may not exceed a
# line that falls to the target; from a later one on, the zeros are held.
CLOSE, CLOSED = 0.6, 0.9
# λ is steered to leave some more than the target, by this share of it: the rest is closed.
MARGIN = 0.1
# λ falls by this, a logarithm, in all of that time while less is left than the target.
RELIEF = 100.0


class Closed(Protocol):
    """The part of a controller that a closing needs; see :class:`torchlasso.control.steering.Steered`."""

    optimizer: Proximal
    shares: list[float]
    strengths: list[float]
    steps: int
    done: int
    allow_empty: bool

    @property
    def left(self) -> list[float]: ...
    def steered(self) -> list[tuple[Group, int, float]]: ...
    def beyond(self, unit: int, ranking: Ranking, most: float) -> Tensor: ...
    def is_met(self, unit: int, left: float) -> bool: ...


class Closing:
    """A limit on what is left, which falls along a line to the target; the least blocks become zero where it is passed.

    Blocks that the loss needs come back from that, as long as the line leaves room. The last tenth of training holds
    the zeros, and the other weights move without a penalty.

    Args:
        target: the controller.
        every: the number of steps from one time to the next.

    Attributes:
        opened: what was left in each unit when it began; None before.
        held: whether the zeros are held.
    """

    def __init__(self, target: Closed, every: int = 1) -> None:
        self.target, self.every = target, every
        self.opened: list[float] | None = None
        self.held = False

    def step(self) -> None:
        """Remove the blocks beyond the line, after a step of training."""
        target, done = self.target, self.target.done / self.target.steps
        last = target.done >= target.steps
        if self.held or done < CLOSE or not (last or target.done % self.every == 0):
            return
        left = target.left
        if self.opened is None:
            self.opened = list(left)
        open_for = 0.0 if last else max(0.0, 1 - (done - CLOSE) / (CLOSED - CLOSE))
        met = []
        for unit, (now, share, first) in enumerate(zip(left, target.shares, self.opened, strict=True)):
            most = share + max(0.0, first - share) * open_for
            if now > most:
                ranking = Ranking(target.optimizer, self._groups_of(unit), target.allow_empty)
                ranking.remove_(target.beyond(unit, ranking, most))
            elif now < share and not target.is_met(unit, now):
                target.strengths[unit] -= RELIEF * self.every / target.steps
            met.append(now > most or target.is_met(unit, now))
        if open_for == 0 and all(met):
            target.optimizer.hold()
            self.held = True

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"opened": self.opened, "held": self.held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.opened, self.held = state.get("opened"), state.get("held", False)

    def _groups_of(self, unit: int) -> Sequence[Group]:
        return [group for group, i, _ in self.target.steered() if i == unit]
