"""The minimum over a working set of inputs: Newton steps on a face, and proximal steps from one face to another.

Where each group is a single number, proximal Newton steps go from one face to another as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.estimators.face import LARGEST, Face
from torchlasso.estimators.proximal_newton import ProximalNewton
from torchlasso.estimators.scaled_inputs import ScaledInputs

SWEEP, SWEEPS = 20, 500  # proximal steps between two rounds of Newton steps, and the most of these rounds
PATIENCE = 5  # rounds without a smaller value, after which it is the smallest that the precision allows
NEWTON = 100  # the most Newton steps of a round
SHORTEST = 2.0**-20  # the shortest Newton step, relative to the whole one


@dataclass
class ScaledProblem:
    """Proximal and Newton steps for a model whose inputs have about the same scale.

    Args:
        inputs: the inputs and their loss.
        lam: λ.
        steepness: an estimate of the Lipschitz constant of the gradient; it grows.
    """

    inputs: ScaledInputs
    lam: float
    steepness: float = 1e-3

    def __post_init__(self) -> None:
        self.x, self.groups, self.loss = self.inputs.x, self.inputs.groups, self.inputs.loss

    def minimum(self, coef: Tensor, near: Tensor) -> Tensor:
        """Return the minimum; its groups are at most ``near`` from stationarity, unless it takes too long.

        Groups of several numbers cannot become zero in a Newton step, so these wait until a sweep leaves the same
        groups zero as the one before.
        """
        lowest, idle, live = float("inf"), 0, self._live(coef)
        has_vectors = bool((~self._numbers(coef) & ~self.groups.are_free[self.groups.numbers]).any())
        is_settled = not has_vectors
        if is_settled and coef.shape[1] == 1 and len(coef) <= LARGEST:
            coef, is_found = ProximalNewton(self.inputs, self.lam).minimum(coef, near)
            if is_found:
                return coef
        for _ in range(SWEEPS):
            coef = self._newton(coef, near) if is_settled else coef
            value = float(self._value(coef))
            idle = 0 if value < lowest else idle + 1
            lowest = min(lowest, value)
            if idle == PATIENCE:  # no precision is left
                break
            gradient = self.x.mT @ self.loss.slope(self.x @ coef)
            if bool((self.groups.distances(coef, gradient, self.lam) <= near).all()):
                break
            coef = self._accelerated(coef)
            before, live = live, self._live(coef)
            is_settled = not has_vectors or torch.equal(before, live)
        return coef

    def _numbers(self, coef: Tensor) -> Tensor:
        """Return a mask of the rows that are groups of a single number, which can become zero."""
        return (self.groups.are_single[self.groups.numbers]) & (coef.shape[1] == 1)

    def _live(self, coef: Tensor) -> Tensor:
        return (self.groups.norms(coef) > 0) | self.groups.are_free

    def _accelerated(self, coef: Tensor) -> Tensor:
        """Take accelerated proximal gradient steps (Beck and Teboulle 2009), with restarts."""
        ahead, momentum = coef, 1.0
        for _ in range(SWEEP):
            outputs = self.x @ ahead
            value, gradient = self.loss.value(outputs), self.x.mT @ self.loss.slope(outputs)
            while True:
                new = self.groups.prox(ahead - gradient / self.steepness, self.lam, 1 / self.steepness)
                moved = new - ahead
                bound = value + (gradient * moved).sum() + self.steepness / 2 * moved.square().sum()
                if self.loss.value(self.x @ new) <= bound + 1e-12 * abs(value) or self.steepness > 1e12:
                    break
                self.steepness *= 2
            if ((ahead - new) * (new - coef)).sum() > 0:  # the momentum points uphill
                ahead, momentum = new, 1.0
            else:
                following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
                ahead, momentum = new + (momentum - 1) / following * (new - coef), following
            coef = new
        return coef

    def _newton(self, coef: Tensor, near: Tensor) -> Tensor:
        """Take Newton steps over the groups that are not zero, where the penalty is smooth.

        A group of a single number ends the step where it would change its sign, and becomes zero, as in the
        feature-sign search (Lee et al. 2006).
        """
        live, numbers = self._live(coef), self._numbers(coef)
        for _ in range(NEWTON):
            rows, groups = self.groups.only(live)
            face = Face(self.x[:, rows], self.loss, groups, self.lam)
            at = coef[rows]
            slope = face.slope(at)
            if bool((groups.norms(slope) <= near[live]).all()):
                break
            direction = face.direction(at, slope)
            crossing = (-at / direction).squeeze(1) if at.shape[1] == 1 else at.new_full((len(rows),), torch.inf)
            crossing = crossing.where(numbers[rows] & (crossing > 0), torch.inf)
            length = first = min(1.0, float(crossing.min()) if len(rows) else 1.0)
            value, descent = face.value(at), float((slope * direction).sum())
            while (
                length > SHORTEST * first and not face.value(at + length * direction) <= value + 1e-4 * length * descent
            ):
                length /= 2
            if length <= SHORTEST * first:
                break
            new = at + length * direction
            new[crossing <= length] = 0.0
            coef = coef.index_copy(0, rows, new)
            live = live & self._live(coef)
            if length == 1 and not face.value(new) < value:
                break
        return coef

    def _value(self, coef: Tensor) -> Tensor:
        return self.loss.value(self.x @ coef) + self.groups.value(coef, self.lam)
