"""A controller of the λ of activations: a wanted number of active units per example."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from torchlasso._core.arguments import check_kind, shown
from torchlasso.activations import ActivationL1
from torchlasso.control.misses import TargetMissed, of_the_steps
from torchlasso.optim.controller import check_owner, check_steps

# In so many steps of a training of 1,500, λ changes by a factor e if twice or half as many units are active as wanted.
GAIN, LEAST, MOST = 15.0, 1e-3, 0.05
# λ may become this many times larger or smaller than it was at the first step.
FURTHEST = 1e4
# The share of training that the number at the end is averaged over, and how far from the target it may be.
WINDOW, TOLERANCE = 0.05, 0.2


class TargetL0:
    """A controller that steers λ of :class:`torchlasso.ActivationL1` to a number of active units per example.

    After each step, with L0 the mean number of the batch,

        λ ← λ · exp(κ·clip(log L0/wanted, −1, 1)),    κ = 15/steps, in [0.001, 0.05]

    λ begins where the term chooses it, in proportion to the gradients of the loss, so that nothing depends on the scale
    of the activations. It stays within a factor of 10⁴ of that.

    Args:
        term: the penalty of the activations.
        l0: how many units are to be active per example, above 0.
        steps: the number of steps of the training.

    Raises:
        ValueError: ``l0`` is not above 0, or above the number of units: at the first step where a module has no reader.

    Warns:
        TargetMissed: at the end, if the number, averaged over the last steps, is more than a fifth away; it says why.

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
        self.start: float | None = None  # λ of the first step
        self.mean = math.nan  # of the number of active units over the last steps
        self._check_units(sum(0 if reader is None else reader.in_features for reader in term.readers))

    def step(self) -> None:
        """Set λ for the next step of the optimizer."""
        self.done += 1
        if not self.term.lam or math.isnan(self.term.l0):
            return
        if self.start is None:
            self.start, self.mean = self.term.lam, self.term.l0
            self._check_units(self.term.activity().units)
        self.mean += (self.term.l0 - self.mean) / max(1.0, WINDOW * self.steps)
        error = math.log(max(self.term.l0, 1e-3) / self.l0)
        gain = min(max(GAIN / self.steps, LEAST), MOST)
        lam = self.term.lam * math.exp(gain * min(max(error, -1.0), 1.0))
        self.term.lam = min(max(lam, self.start / FURTHEST), self.start * FURTHEST)
        if self.done == self.steps and self.missed:
            warnings.warn(TargetMissed(self.missed), stacklevel=2)

    @property
    def missed(self) -> str | None:
        """A sentence that says how far the number is from the target, and why; None if it is met, or not known yet."""
        if math.isnan(self.mean) or abs(self.mean - self.l0) <= TOLERANCE * self.l0:
            return None
        lam, units = self.term.lam or 0.0, self.term.activity().units
        if early := of_the_steps(min(self.done, self.steps), self.steps):  # it goes on after its steps
            why = early
        elif self.mean > (1 - 1e-6) * units:
            why = "no unit is ever exactly zero: penalise the outputs of modules that give zeros, such as nn.ReLU"
        elif self.start is not None and not self.start / FURTHEST < lam < self.start * FURTHEST:
            why = f"λ reached {lam:.3g}, its limit for this start"
        else:
            why = f"use more steps, or start nearer to the last λ, {lam:.3g}"
        return f"TargetL0: {self.mean:.4g} of {units} units are active per example instead of {self.l0:.4g}; {why}"

    def _check_units(self, units: int) -> None:
        """Raise ``ValueError`` if fewer units are known than are to be active, unless some have no reader to tell."""
        known = self.start is not None or None not in self.term.readers
        if known and self.l0 > units:
            raise ValueError(
                f"TargetL0: l0={self.l0:.4g} active units of {units} are not possible: give at most {units}"
            )

    @property
    def _described(self) -> str:
        return f"TargetL0(l0={self.l0})"

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs beside the state of the term."""
        return {"controller": self._described, "done": self.done, "start": self.start, "mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Load the term's, too.

        Raises:
            ValueError: the state is that of another controller, or with another target.
        """
        check_owner(state, self._described)
        self.done, self.start, self.mean = int(state["done"]), state["start"], float(state["mean"])
