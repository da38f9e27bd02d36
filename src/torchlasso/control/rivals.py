"""One target at a time: controllers that steer λ of the same optimizer would undo each other's work."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary, ref

from torchlasso.optim import Proximal


class Steering(Protocol):
    optimizer: Proximal
    acts: bool  # whether it has steered since it was made

    @property
    def described(self) -> str: ...


# The controller that steered λ of an optimizer last. One that another has replaced is not in the way: only where
# both go on do they take turns.
_LAST: WeakKeyDictionary[Proximal, ref[Steering]] = WeakKeyDictionary()


def check_alone(control: Steering) -> None:
    """Raise ``ValueError`` if another controller has steered λ since the last step of this one."""
    last = _LAST.get(control.optimizer)
    rival = None if last is None else last()
    if control.acts and rival is not None and rival is not control:
        raise ValueError(
            f"{control.described} and {rival.described} steer the λ of one optimizer at once, and each undoes what the "
            "other does; step one of them, or give each its own optimizer"
        )
    control.acts = True
    _LAST[control.optimizer] = ref(control)
