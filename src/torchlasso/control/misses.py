"""Targets that were missed, with a likely reason."""

from __future__ import annotations

from typing import Protocol

from torchlasso.control.closing import Closing
from torchlasso.control.protection import is_protected
from torchlasso.distributed.sharding import local
from torchlasso.selection import Group

# λ may become this much larger or smaller than it was given (a logarithm).
FURTHEST = 14.0


class TargetMissed(UserWarning):
    """A warning: training ended away from the target. The message says where, and a likely reason."""


class Missed(Protocol):
    """The part of a controller that an explanation needs; see :class:`torchlasso.control.steering.Steered`."""

    what: str
    done: int
    steps: int
    exact: bool
    stuck: bool
    strengths: list[float]
    closing: Closing | None

    @property
    def lam(self) -> list[float]: ...
    def steered(self) -> list[tuple[Group, int, float]]: ...


def explanation(target: Missed, share: float, left: float) -> str:
    """Return a sentence that says how much is left instead of the target, and why."""
    ended = f"{type(target).__name__}: training ended with {100 * left:.2f} % of {target.what} left"
    return f"{ended} instead of {100 * share:.2f} %; {_reason(target, left - share)}"


def of_the_steps(done: int, steps: int) -> str | None:
    """Return the reason if the training of a controller had another number of steps than it was given."""
    if done < steps:
        return f"there were only {done:,} of its {steps:,} steps"
    return f"training went on after its {steps:,} steps: make it with all of them" if done > steps else None


def _reason(target: Missed, excess: float) -> str:
    too_much = excess > 0
    params = [p for group, _, _ in target.steered() for p in group["params"]]
    if not all(bool(local(p.detach()).isfinite().all()) for p in params):
        return "training diverged: there are weights that are NaN or infinite"
    held, late = any(group["held"] for group, _, _ in target.steered()), target.done > target.steps
    if not (held and late) and (why := of_the_steps(target.done, target.steps)):  # a hold goes on after the search
        return why
    closed = target.closing is not None and target.closing.held
    if held and not late and not closed:
        return "the zeros were held before its last step: give it the number of steps before the hold, Hold.start"
    if too_much and any(is_protected(group) for group, _, _ in target.steered()):
        return "a layer that would have become empty was kept (allow_empty=False)"
    if target.exact:
        if too_much:
            return "no λ leaves so little"
        return "blocks that were zero did not come back" if target.stuck else "a block more would have been too much"
    if target.closing is not None:
        if too_much:
            return "no more blocks can go"
        if target.closing.held:
            return "a block more would have been too much"
        return "blocks that were zero did not come back: start with a smaller λ, or use more steps"
    if max(map(abs, target.strengths)) == FURTHEST:
        return f"λ reached {max(target.lam):.3g}, its limit for this start"
    return f"λ was still changing: use more steps, or start nearer to its last value, {max(target.lam):.3g}"
