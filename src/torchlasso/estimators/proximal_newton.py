"""The minimum of a smooth loss under an elastic net over numbers, by a quadratic model of the loss in each step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from torchlasso.estimators.points import Numbers
from torchlasso.estimators.quadratic import NumberPenalty, QuadraticLasso
from torchlasso.estimators.scaled_inputs import ScaledInputs

STEPS = 100  # the most steps
PATIENCE = 5  # after so many steps without progress, rounding hides what is left to gain
EXACT = 0.1  # the distance from stationarity of the minimum of a model, relative to the one that is asked for
SHORTEST = 2.0**-20  # the shortest step, relative to the whole one
ROUNDING = 1e-14  # of the value of the objective


@dataclass(frozen=True)
class ProximalNewton:
    """Proximal Newton steps (Lee, Sun and Saunders 2014) over groups of one number each, and numbers without a penalty.

    Args:
        inputs: the inputs and their loss, of one output.
        lam: λ.
    """

    inputs: ScaledInputs
    lam: float

    def minimum(self, coef: Tensor, near: Tensor) -> tuple[Tensor, bool]:
        """Return the minimum, (k, 1), and whether each group is at most ``near`` from stationarity.

        The minimum of a quadratic loss is found in one step, and the next one verifies it.
        """
        loss, u, limit = self.inputs.loss, coef[:, 0].numpy(), self._limits(near)
        idle, closest, lowest = 0, float("inf"), float("inf")
        for _ in range(STEPS):
            outputs = self._outputs(u)
            gradient = (self.inputs.x.mT @ loss.slope(outputs))[:, 0].numpy()
            away = _farthest(self._penalty.distances(u, gradient), limit)
            if away <= 1:
                return torch.from_numpy(u)[:, None], True
            value = self._value(u, outputs)
            idle = 0 if value < lowest or away < closest else idle + 1
            lowest, closest = min(lowest, value), min(closest, away)
            if idle == PATIENCE:
                break
            new = self._model(u, outputs, gradient).minimum(u, EXACT * limit)
            if not loss.is_quadratic:
                gain = float(gradient @ (new - u)) + self._penalty.value(new) - self._penalty.value(u)
                length = 1.0
                slack = ROUNDING * abs(value)
                while self._value(moved := u + length * (new - u)) > value + 1e-4 * length * gain + slack:
                    length /= 2
                    if length < SHORTEST:
                        return torch.from_numpy(u)[:, None], False
                new = new if length == 1 else moved
            u = new
        return torch.from_numpy(u)[:, None], False

    def _limits(self, near: Tensor) -> Numbers:
        """Return the largest distances of the numbers that together are that of their group."""
        numbers = self.inputs.groups.numbers
        sizes = torch.bincount(numbers, minlength=len(near))
        limits: Numbers = (near / sizes.sqrt())[numbers].numpy()
        return limits

    def _model(self, u: Numbers, outputs: Tensor, gradient: Numbers) -> QuadraticLasso:
        loss, x = self.inputs.loss, self.inputs.x
        bend = self.inputs.curvature if loss.is_quadratic else loss.curvature(outputs).between(x)
        a = bend.numpy()
        target = a @ u - gradient
        if self._penalty.ridge.any():
            a = a.copy()
            a.flat[:: len(a) + 1] += self._penalty.ridge
        return QuadraticLasso(a, target, self._penalty)

    def _outputs(self, u: Numbers) -> Tensor:
        return self.inputs.x @ torch.from_numpy(u)[:, None]

    def _value(self, u: Numbers, outputs: Tensor | None = None) -> float:
        known = self._outputs(u) if outputs is None else outputs
        return float(self.inputs.loss.value(known)) + self._penalty.value(u)

    @cached_property
    def _penalty(self) -> NumberPenalty:
        groups, numbers = self.inputs.groups, self.inputs.groups.numbers
        positive = torch.zeros_like(groups.l1, dtype=torch.bool) if groups.positive is None else groups.positive
        strengths, ridge = self.lam * groups.l1, self.lam * groups.l2
        return NumberPenalty(*(each[numbers].numpy() for each in (strengths, ridge, positive)))


def _farthest(distances: Numbers, limit: Numbers) -> float:
    """Return the largest distance in units of its limit; a limit is 0 where zero is exact, such as for y = 0."""
    relative = np.divide(distances, limit, out=np.where(distances > 0, np.inf, 0.0), where=limit > 0)
    return float(relative.max(initial=0.0))
