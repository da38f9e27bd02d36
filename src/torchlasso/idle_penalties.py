"""A warning for penalties that nothing applies: groups of ``param_groups`` in an optimizer without a prox."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from torchlasso.penalties import Penalty

NAMED = ("SGD", "Adam", "AdamW")  # optimizers whose proximal form has a name

RECENT = 8  # the most steps per optimizer between a loss term and the step that it belongs to

# Parameters whose penalty was a term of the loss, by id: weak references would prevent the removal of units. The number
# of the step is kept as well, since an id can belong to another tensor after the parameter is deleted.
_terms: dict[int, int] = {}
_steps = itertools.count()
_stepped: WeakSet[Optimizer] = WeakSet()  # all optimizers that have made a step
_seen: WeakSet[Optimizer] = WeakSet()


def _is_recent(noted: int, now: int) -> bool:
    return now - noted <= RECENT * max(1, len(_stepped))


def note_term(params: Iterable[Tensor]) -> None:
    """Note that the penalty of these parameters is a term of the loss."""
    now = next(_steps)
    for old in [key for key, noted in _terms.items() if not _is_recent(noted, now)]:
        del _terms[old]
    _terms.update(dict.fromkeys(map(id, params), now))


@functools.cache
def watch() -> None:
    """Check every torch optimizer after its first step, and warn if nothing applies its penalties.

    Proximal optimizers keep their penalties elsewhere, so the check skips them. The hook does not write to optimizers.
    """
    register_optimizer_step_post_hook(_look)


def _look(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    now = next(_steps)
    _stepped.add(optimizer)
    params = {
        id(p)
        for group in optimizer.param_groups
        if isinstance(group.get("penalty"), Penalty) and group.get("lam") != 0  # with λ = 0 there is nothing to apply
        for p in group["params"]
        if p.grad is not None
    }
    if not params:
        return
    noted = [_terms.pop(key, None) for key in params]
    idle = any(when is None or not _is_recent(when, now) for when in noted)
    if idle and optimizer not in _seen:
        warnings.warn(_message(type(optimizer)), stacklevel=3)
    _seen.add(optimizer)


def _message(cls: type[Optimizer]) -> str:
    name = cls.__name__
    proximal = f"Prox{name}" if name in NAMED else f"proximal({name})"
    return (
        f"{name} does not apply the penalties of its parameter groups, so that no weight becomes exactly zero: give "
        f"the groups to torchlasso.{proximal}, or add torchlasso.penalty(groups) to the loss"
    )
