"""Schedules of the learning rate: its factor as a function of the share of steps done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[float, float], float]  # (the share done, the share of the decay) ↦ the factor


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


SCHEDULES: Mapping[str, Schedule] = {
    "cosine": lambda done, decay: _cosine(done),
    "linear": lambda done, decay: 1 - done,
    "constant": lambda done, decay: 1.0,
    # warm-up, constant, decay: a support settles at a high rate, and the weights at a falling one
    "wsd": lambda done, decay: 1.0 if done < 1 - decay else _cosine(1 - (1 - done) / decay),
}


def rate(schedule: str, step: int, steps: int, *, warmup: float = 0.0, decay: float = 0.25) -> float:
    """Return the factor on the learning rate in a step.

    The warm-up is a line from 0 that ends at the schedule; a decay is half a cosine, to 0 after the last step.

    Args:
        schedule: a name in ``SCHEDULES``.
        step: the number of steps done, from 0 on.
        steps: the number of steps in all.
        warmup: the share of steps over which the rate rises.
        decay: the share of steps over which it falls at the end of ``wsd``.

    Examples:
        For a scheduler of torch's:

        >>> import torch, torchlasso as tl
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> factor = lambda step: rate("wsd", step, 8, warmup=0.25, decay=0.5)
        >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        >>> [round(factor(step), 2) for step in range(9)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    done = min(1.0, step / steps)
    rising = min(1.0, (step + 1) / (warmup * steps)) if warmup else 1.0
    return rising * SCHEDULES[schedule](done, decay)
