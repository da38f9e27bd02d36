"""A controller of the λ of activations: a wanted number of active units per example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torchlasso._core.arguments import check_kind, shown
from torchlasso.activations import ActivationL1
from torchlasso.control.base import check_owner, check_steps

# In so many steps of a training of 1,500, λ changes by a factor e if twice or half as many units are active as wanted.
GAIN, LEAST, MOST = 15.0, 1e-3, 0.05


class TargetL0:
    """A controller that steers λ of :class:`torchlasso.ActivationL1` to a number of active units per example.

    After each step, with L0 the mean number of the batch,

        λ ← λ · exp(κ·clip(log L0/wanted, −1, 1)),    κ = 15/steps, in [0.001, 0.05]

    λ begins where the term chooses it, in proportion to the gradients of the loss, so that nothing depends on the scale
    of the activations.

    Args:
        term: the penalty of the activations.
        l0: how many units are to be active per example, above 0.
        steps: the number of steps of the training.

    Raises:
        ValueError: ``l0`` is not above 0.

    Examples:
        >>> import torch
        >>> import torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> coder = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> optimizer = torch.optim.Adam(coder.parameters(), lr=1e-2)
        >>> term = tl.ActivationL1(coder[1], coder[2])
        >>> control = TargetL0(term, l0=3, steps=400)
        >>> for _ in range(400):
        ...     x = torch.randn(64, 4)
        ...     optimizer.zero_grad()
        ...     (torch.nn.functional.mse_loss(coder(x), x) + term()).backward()
        ...     optimizer.step()
        ...     control.step()
        >>> 2.5 < term.l0 < 3.5
        True
    """

    def __init__(self, term: ActivationL1, l0: float, steps: int) -> None:
        check_kind("TargetL0: term", term, ActivationL1, "a torchlasso.ActivationL1")
        if not isinstance(l0, int | float) or isinstance(l0, bool) or not 0 < l0 < math.inf:
            raise ValueError(f"TargetL0: l0 must be a number of active units above 0; got {shown(l0)}")
        check_steps(steps, "TargetL0")
        self.term, self.l0, self.steps = term, float(l0), steps
        self.done = 0

    def step(self) -> None:
        """Set λ for the next step of the optimizer."""
        self.done += 1
        if not self.term.lam or math.isnan(self.term.l0):
            return
        error = math.log(max(self.term.l0, 1e-3) / self.l0)
        gain = min(max(GAIN / self.steps, LEAST), MOST)
        self.term.lam *= math.exp(gain * min(max(error, -1.0), 1.0))

    @property
    def _described(self) -> str:
        return f"TargetL0(l0={self.l0})"

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs beside the state of the term."""
        return {"controller": self._described, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Load the term's, too.

        Raises:
            ValueError: the state is that of another controller, or with another target.
        """
        check_owner(state, self._described)
        self.done = int(state["done"])
