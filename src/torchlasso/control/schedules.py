"""λ as a function of time."""

from __future__ import annotations

import math
from collections.abc import Callable

from torchlasso._core.arguments import shown
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController, check_steps


class Warmup(LambdaController):
    """A factor on λ that depends on the share of ``steps`` done: by default a line from 0 to 1, and 1 afterwards.

    Args:
        optimizer: whose λ is controlled.
        steps: the number of steps of the optimizer that it takes.
        shape: the share done, from 0 to 1, ↦ the factor on λ, at least 0: any schedule of λ.

    Raises:
        ValueError: ``steps`` is below 1, or the function does not return a finite factor of at least 0.

    Examples:
        >>> import torch, torchlasso as tl
        >>> optimizer = tl.ProxSGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, penalty=tl.L1(), lam=0.5)
        >>> control = Warmup(optimizer, steps=4)
        >>> found = list(control.lam)
        >>> for _ in range(5):
        ...     control.step()
        ...     found += control.lam
        >>> found
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """

    def __init__(self, optimizer: Proximal, steps: int, shape: Callable[[float], float] = float) -> None:
        super().__init__(optimizer)
        check_steps(steps, "Warmup")
        if not callable(shape):
            raise TypeError(f"Warmup: shape must be a function of the share that is done; got {shown(shape)}")
        self.steps, self.shape = steps, shape
        self._control()

    def _control(self) -> None:
        share = min(1.0, self.done / self.steps)
        factor = float(self.shape(share))
        if not 0 <= factor < math.inf:
            raise ValueError(f"Warmup: shape({share:g}) must be a finite number of at least 0; got {factor}")
        for group, _ in self._groups():
            self._write(group, factor)
