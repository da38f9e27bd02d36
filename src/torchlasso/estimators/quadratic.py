"""The exact minimum of a quadratic function under the lasso: from one set of signs to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from torchlasso.estimators.points import Numbers

STEPS = 2000  # the most steps; few are needed, since most numbers have their sign from the start
SINGULAR = 1e-13  # a pivot this small, relative to the largest element, is a rounding error


@dataclass(frozen=True)
class NumberPenalty:
    """The elastic net over numbers, some of which are at least 0: Σ_j α_j·|u_j| + β_j/2·u_j².

    Args:
        strengths: α, at least 0, (k,).
        ridge: β, at least 0, (k,).
        positive: a mask of the numbers that are at least 0, (k,).
    """

    strengths: Numbers
    ridge: Numbers
    positive: Numbers

    def value(self, u: Numbers) -> float:
        """Return the penalty."""
        return float(self.strengths @ np.abs(u) + self.ridge @ np.square(u) / 2)

    def distances(self, u: Numbers, gradient: Numbers) -> Numbers:
        """Return dist(−gradient, ∂penalty) of each number: 0 where it is stationary."""
        slope = gradient + self.ridge * u
        at_zero = np.maximum(self.pulls(slope) - self.strengths, 0.0)
        found: Numbers = np.where(u == 0, at_zero, np.abs(slope + self.strengths * np.sign(u)))
        return found

    def pulls(self, slope: Numbers) -> Numbers:
        """Return the size of a slope where it can move a number away from zero."""
        found: Numbers = np.where(self.positive, np.maximum(-slope, 0.0), np.abs(slope))
        return found

    @property
    def is_free(self) -> Numbers:
        """A mask of the numbers that nothing makes zero."""
        found: Numbers = (self.strengths == 0) & ~self.positive
        return found


@dataclass(frozen=True)
class QuadraticLasso:
    """½·uᵀHu − cᵀu plus a penalty of the numbers.

    The search takes Newton steps over the numbers that are not zero. A number that the slope pulls away from zero
    joins them with its sign, as in the feature-sign search (Lee et al. 2006), and all such numbers join at once where
    the step moves them as they are pulled. Along a step the function is piecewise quadratic; it ends at its minimum.

    Args:
        a: H plus the ridge of the penalty: symmetric and positive semidefinite, (k, k).
        b: c, (k,).
        penalty: the penalty.

    Examples:
        >>> zeros, ones = np.zeros(3), np.ones(3)
        >>> penalty = NumberPenalty(ones, zeros, zeros > 0)
        >>> QuadraticLasso(np.eye(3), np.array([2.0, -3.0, 0.5]), penalty).minimum(zeros, near=1e-9)
        array([ 1., -2.,  0.])
    """

    a: Numbers
    b: Numbers
    penalty: NumberPenalty

    def minimum(self, start: Numbers, near: Numbers | float) -> Numbers:
        """Return the minimum; each number is at most ``near`` from stationarity, unless that takes too long."""
        u, free, strengths, refined = start.copy(), self.penalty.is_free, self.penalty.strengths, False
        for _ in range(STEPS):
            slope, signs = self.a @ u - self.b, np.sign(u)
            live = (u != 0) | free
            pull = self.penalty.pulls(slope) - strengths
            joining = ~live & (pull > near)
            is_stationary = bool((~live | (np.abs(slope + strengths * signs) <= near)).all())
            if not joining.any() and (is_stationary or refined):
                break
            signs[joining] = -np.sign(slope[joining])
            strongest = int(np.where(joining, pull, -np.inf).argmax()) if is_stationary else -1
            slope += strengths * signs
            moving, direction = self._direction(slope, signs, live, joining, strongest)
            if not self._advance(u, slope, live, moving, direction):
                break
            # a Newton step that changed no sign leaves nothing but rounding
            refined = not joining.any() and np.array_equal(np.sign(u), signs)
        return u

    def _direction(
        self, slope: Numbers, signs: Numbers, live: Numbers, joining: Numbers, strongest: int
    ) -> tuple[Numbers, Numbers]:
        """Return the places that move, and the Newton direction of their numbers for these signs.

        Numbers that would move against their pull stay zero. If none is left, and the others do not move either, the
        one with the strongest pull moves: it cannot move against it.
        """
        moving = np.flatnonzero(live | joining)
        while True:
            direction = _solution(self.a[np.ix_(moving, moving)], -slope[moving])
            against = joining[moving] & (direction * signs[moving] <= 0)
            if not against.any():
                return moving, direction
            kept = moving[~against]
            if strongest >= 0 and not joining[kept].any():
                if np.array_equal(joining[moving], moving == strongest):
                    return moving[:0], direction[:0]  # even alone it moves the wrong way: its pull is a rounding error
                kept = np.flatnonzero(live | (np.arange(len(live)) == strongest))
            moving = kept

    def _advance(self, u: Numbers, slope: Numbers, live: Numbers, moving: Numbers, direction: Numbers) -> bool:
        """Move numbers to the minimum along a direction, in place; return whether it leads downhill."""
        strengths, positive = self.penalty.strengths[moving], self.penalty.positive[moving]
        rate = float(direction @ slope[moving])
        bend = float(direction @ self.a[np.ix_(moving, moving)] @ direction)
        if not rate < 0:
            return False
        bounded = live[moving] & ((strengths > 0) | positive)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(bounded, -u[moving] / direction, np.inf)
        crossing = np.where(crossing > 0, crossing, np.inf)
        kinks = np.where(positive, np.inf, 2 * strengths * np.abs(direction))
        length = None
        for place in np.argsort(crossing):
            end = float(crossing[place])
            if end == np.inf or rate + end * bend >= 0:
                break
            rate += float(kinks[place])
            if rate + end * bend >= 0:
                length = end
                break
        if length is None:
            if not bend > 0:
                return False
            length = -rate / bend
        u[moving] += length * direction
        u[moving[crossing == length]] = 0.0
        return True


def _solution(a: Numbers, b: Numbers) -> Numbers:
    """Return a⁻¹·b; where a is singular up to rounding, of a matrix near it that is not.

    So nothing moves along a direction that changes nothing, such as from a column to a copy of it.
    """
    if not len(b):
        return b
    damping = 1e-11 * float(a.diagonal().mean())
    while True:
        factor, found, info = lapack.dposv(a, b, lower=1)
        pivots = np.square(factor.diagonal())
        if info == 0 and pivots.min() > SINGULAR * a.diagonal().max():
            return np.asarray(found)
        if not 0 < damping < float("inf"):
            return b
        a = a.copy()
        a.flat[:: len(b) + 1] += damping
        damping *= 10
