"""Linear models under L1: the exact minimum of a convex loss of X·B + b plus a group lasso over the inputs.

minimise over B (p × q) and b (q):  ℓ(X·B + b) + λ·Σ_g (α_g·‖B_g‖ + β_g/2·‖B_g‖²)

with B_g the rows of B that belong to group g of the inputs. With one output and one input in each group it is the
elastic net, and for β = 0 the lasso.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class SmoothLoss(Protocol):
    """A convex, twice differentiable loss of the outputs of a model, (n, q): a mean over rows."""

    def value(self, outputs: Tensor) -> Tensor:
        """Return the loss, a scalar."""

    def slope(self, outputs: Tensor) -> Tensor:
        """Return its gradient, (n, q)."""

    def curvature(self, outputs: Tensor) -> Tensor:
        """Return its second derivatives within each row, (n, q, q)."""


FIRST, GROWTH = 100, 2  # the most groups that join the first working set, and the growth of the next ones
SWEEP, SWEEPS = 20, 500  # proximal steps between two rounds of Newton steps, and the most of these rounds
PATIENCE = 5  # rounds without a smaller value, after which it is the smallest that the precision allows
NEWTON = 100  # the most Newton steps of a round
LARGEST, CONJUGATE = 1000, 500  # the most numbers with a dense matrix of curvature; the most steps without
SHORTEST = 2.0**-20  # the shortest Newton step, relative to the whole one


@dataclass(frozen=True)
class InputGroups:
    """Groups of the rows of B, and the strengths of their penalties.

    Args:
        numbers: the number of the group of each row, (p,), from 0 on.
        l1: α, (groups,): of the norm; 0 for a group that is not selected but always there.
        l2: β, (groups,): of half the squared norm.
    """

    numbers: Tensor
    l1: Tensor
    l2: Tensor

    def only(self, groups: Tensor) -> tuple[Tensor, InputGroups]:
        """Return the rows of some groups, given by a mask, and the groups of these rows."""
        new = groups.cumsum(0) - 1
        rows = groups[self.numbers].nonzero()[:, 0]
        return rows, InputGroups(new[self.numbers[rows]], self.l1[groups], self.l2[groups])

    def norms(self, coef: Tensor) -> Tensor:
        """Return ‖B_g‖ of each group."""
        return coef.new_zeros(len(self.l1)).index_add(0, self.numbers, coef.square().sum(dim=1)).sqrt()

    def value(self, coef: Tensor, lam: float) -> Tensor:
        """Return the penalty, a scalar."""
        norms = self.norms(coef)
        return lam * (self.l1 * norms + self.l2 / 2 * norms.square()).sum()

    def prox(self, coef: Tensor, lam: float, step: float) -> Tensor:
        """Return argmin_u ½‖u − coef‖² + step·penalty(u)."""
        norms = self.norms(coef)
        left = (1 - step * lam * self.l1 / norms).where(norms > 0, 0.0).clamp_min(0)
        return coef * (left / (1 + step * lam * self.l2))[self.numbers, None]

    def distances(self, coef: Tensor, gradient: Tensor, lam: float) -> Tensor:
        """Return dist(−gradient, ∂penalty) of each group: 0 where it is stationary."""
        norms = self.norms(coef)
        slope = lam * ((self.l1 / norms).where(norms > 0, 0.0) + self.l2)
        away = self.norms(gradient + coef * slope[self.numbers, None])
        return (away - (lam * self.l1).where(norms == 0, 0.0)).clamp_min(0)


@dataclass(frozen=True)
class Solution:
    """A minimum, and how exact it is.

    Attributes:
        coef: B, (p, q).
        intercept: b, (q,).
        distance: the largest distance of −∇ℓ from the subdifferential of the penalty, over the groups.
        is_exact: whether the distance is as small as it was to be.
    """

    coef: Tensor
    intercept: Tensor
    distance: float = float("inf")
    is_exact: bool = False


@dataclass(frozen=True)
class LinearProblem:
    """A linear model with its loss and the groups of its inputs.

    Args:
        x: X, (n, p), of double precision.
        loss: ℓ.
        groups: the groups of the inputs.
        outputs: q.
        intercept: whether b is fitted; otherwise it is 0.
        tolerance: the largest distance of a solution from stationarity, relative to the largest gradient of a group at
            B = 0.

    Examples:
        >>> from torchlasso.estimators.losses import SQUARED, Targets
        >>> x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[3.0], [1.0]]).double()
        >>> one = InputGroups(torch.tensor([0]), torch.ones(1).double(), torch.zeros(1).double())
        >>> lasso = LinearProblem(x, Targets(y, torch.ones(2).double(), 1, SQUARED), one, outputs=1)
        >>> lasso.lambda_max
        1.0
        >>> found = lasso.minimum(0.25)
        >>> found.coef, found.intercept  # 1 − λ, and the mean
        (tensor([[0.7500]], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """

    x: Tensor
    loss: SmoothLoss
    groups: InputGroups
    outputs: int
    intercept: bool = True
    tolerance: float = 1e-9

    @cached_property
    def lambda_max(self) -> float:
        """The least λ for which all penalised groups are zero."""
        norms, penalised = self.groups.norms(self._gradient(self._at_zero)), self.groups.l1 > 0
        return float((norms / self.groups.l1)[penalised].max()) if penalised.any() else 0.0

    def minimum(self, lam: float, start: Solution | None = None) -> Solution:
        """Return the minimum for one λ.

        Groups join a working set until no other could help.

        Args:
            lam: λ, at least 0.
            start: the solution for another λ, to begin with.
        """
        found, near = start or self._at_zero, self._near
        working = (self.groups.l1 == 0) | (self.groups.norms(found.coef) > 0)
        most = FIRST
        while True:
            found = self._minimum_over(working, lam, found, near)
            away = self.groups.distances(found.coef, self._gradient(found), lam)
            outside = away.masked_fill(working, 0.0)
            joining = outside.topk(min(most, len(outside))).indices
            joining = joining[outside[joining] > near]
            if not len(joining):
                distance = float(away.max())
                return replace(found, distance=distance, is_exact=distance <= 2 * near)
            working[joining] = True
            most = max(most, (GROWTH - 1) * int(working.sum()))

    def _gradient(self, at: Solution) -> Tensor:
        return self.x.mT @ self.loss.slope(self.x @ at.coef + at.intercept)

    @cached_property
    def _at_zero(self) -> Solution:
        """The minimum while all penalised groups are zero."""
        nothing = Solution(self.x.new_zeros(self.x.shape[1], self.outputs), self.x.new_zeros(self.outputs))
        always, scale = self.groups.l1 == 0, float(self.groups.norms(self._gradient(nothing)).max())
        return self._minimum_over(always, 0.0, nothing, self.tolerance * scale)

    @cached_property
    def _near(self) -> float:
        return self.tolerance * float(self.groups.norms(self._gradient(self._at_zero)).max())

    def _minimum_over(self, working: Tensor, lam: float, start: Solution, near: float) -> Solution:
        """Return the minimum over some groups, while the others are zero.

        The inputs are centred and each group is scaled, which changes the minimum in a known way; the intercept is one
        more input of a group without a penalty.
        """
        rows, groups = self.groups.only(working)
        x, coef = self.x[:, rows], start.coef[rows]
        centre = x.mean(dim=0) if self.intercept else x.new_zeros(len(rows))
        x = x - centre
        sizes = groups.norms(x.square().mean(dim=0).sqrt()[:, None])
        sizes = sizes.where(sizes > 0, 1.0)
        x = x / sizes[groups.numbers]
        groups = replace(groups, l1=groups.l1 / sizes, l2=groups.l2 / sizes.square())
        coef = coef * sizes[groups.numbers, None]
        nears = near / sizes
        if self.intercept:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
            free = start.intercept + centre @ start.coef[rows]
            coef = torch.cat([coef, free[None]])
            numbers = torch.cat([groups.numbers, groups.numbers.new_tensor([len(groups.l1)])])
            nothing = groups.l1.new_zeros(1)
            groups = InputGroups(numbers, torch.cat([groups.l1, nothing]), torch.cat([groups.l2, nothing]))
            nears = torch.cat([nears, nothing + near])
        coef = _Scaled(x, self.loss, groups, lam).minimum(coef, nears)
        found = torch.zeros_like(start.coef)
        found[rows] = coef[: len(rows)] / sizes[groups.numbers[: len(rows)], None]
        return Solution(found, coef[-1] - centre @ found[rows] if self.intercept else start.intercept)


@dataclass
class _Scaled:
    """Proximal and Newton steps for a model whose inputs have about the same scale."""

    x: Tensor
    loss: SmoothLoss
    groups: InputGroups
    lam: float
    steepness: float = 1e-3  # an estimate of the Lipschitz constant of the gradient; it grows

    def minimum(self, coef: Tensor, near: Tensor) -> Tensor:
        """Return the minimum; its groups are at most ``near`` from stationarity, unless it takes too long."""
        lowest, idle = float("inf"), 0
        for _ in range(SWEEPS):
            coef = self._newton(coef, near)
            value = float(self.loss.value(self.x @ coef) + self.groups.value(coef, self.lam))
            idle = 0 if value < lowest else idle + 1
            lowest = min(lowest, value)
            if idle == PATIENCE:  # no precision is left
                break
            gradient = self.x.mT @ self.loss.slope(self.x @ coef)
            if bool((self.groups.distances(coef, gradient, self.lam) <= near).all()):
                break
            coef = self._accelerated(coef)
        return coef

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
        live = (self.groups.norms(coef) > 0) | (self.groups.l1 == 0)
        numbers = self.groups.norms(torch.ones_like(coef)).square()[self.groups.numbers] < 1.5  # in the group of a row
        numbers &= self.groups.l1[self.groups.numbers] > 0
        for _ in range(NEWTON):
            rows, groups = self.groups.only(live)
            face = _Face(self.x[:, rows], self.loss, groups, self.lam)
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
            live = live & ((self.groups.norms(coef) > 0) | (self.groups.l1 == 0))
            if length == 1 and not face.value(new) < value:
                break
        return coef


@dataclass(frozen=True)
class _Face:
    """The objective over groups that are not zero, where it is smooth."""

    x: Tensor
    loss: SmoothLoss
    groups: InputGroups
    lam: float

    def value(self, at: Tensor) -> Tensor:
        return self.loss.value(self.x @ at) + self.groups.value(at, self.lam)

    def slope(self, at: Tensor) -> Tensor:
        return self.x.mT @ self.loss.slope(self.x @ at) + at * self._steepness(at)

    def direction(self, at: Tensor, slope: Tensor) -> Tensor:
        """Return the Newton direction d: ∇²·d = −slope. Where the curvature vanishes, it leads far downhill."""
        within = self.loss.curvature(self.x @ at)
        if at.numel() > LARGEST:
            return self._conjugate_gradients(at, slope, within)
        curvature = self._curvature(at, within)
        diagonal = curvature.diagonal()
        damping = 1e-11 * float(diagonal.mean()) if at.numel() else 0.0
        while True:
            whole, info = torch.linalg.cholesky_ex(curvature)
            if info == 0:
                return torch.cholesky_solve(-slope.reshape(-1, 1), whole).reshape(at.shape)
            if not 0 < damping < float("inf"):
                return -slope
            diagonal += damping  # of the matrix itself
            damping *= 10

    def _steepness(self, at: Tensor) -> Tensor:
        """Return the factors of the rows in the gradient of the penalty, (rows, 1)."""
        norms = self.groups.norms(at)
        factors = self.lam * ((self.groups.l1 / norms).where(self.groups.l1 > 0, 0.0) + self.groups.l2)
        return factors[self.groups.numbers, None]

    def _bend(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return s and u with ∇²penalty = s − Σ_g u_g·u_gᵀ: s a factor of each row, u_g the rows of a group."""
        norms = self.groups.norms(at)
        cubes = (self.lam * self.groups.l1 / norms**3).where(self.groups.l1 > 0, 0.0)
        return self._steepness(at), at * cubes.sqrt()[self.groups.numbers, None]

    def _curvature(self, at: Tensor, within: Tensor) -> Tensor:
        """Return ∇², (rows · q, rows · q)."""
        size, q = at.shape
        found = (
            torch.einsum("na,nij,nb->aibj", self.x, within, self.x) if q > 1 else self.x.mT @ (self.x * within[:, 0])
        )
        found = found.reshape(size * q, size * q)
        factors, bent = self._bend(at)
        found.diagonal().add_(factors.expand_as(at).reshape(-1))
        same = self.groups.numbers[:, None] == self.groups.numbers
        outer = torch.einsum("ai,bj->aibj", bent, bent) * same[:, None, :, None]
        return found - outer.reshape(size * q, size * q)

    def _conjugate_gradients(self, at: Tensor, slope: Tensor, within: Tensor) -> Tensor:
        """Solve ∇²·d = −slope step by step, as far as the curvature reaches."""
        factors, bent = self._bend(at)
        groups = self.groups
        found, rest = torch.zeros_like(at), -slope
        direction, size = rest, rest.square().sum()
        enough = 1e-20 * size
        for _ in range(CONJUGATE):
            curved = self.x.mT @ torch.einsum("nij,nj->ni", within, self.x @ direction) + factors * direction
            along = at.new_zeros(len(groups.l1)).index_add(0, groups.numbers, (bent * direction).sum(dim=1))
            curved = curved - bent * along[groups.numbers, None]
            curvature = (direction * curved).sum()
            if not curvature > 1e-14 * direction.square().sum():
                break
            length = size / curvature
            found, rest = found + length * direction, rest - length * curved
            size, before = rest.square().sum(), size
            if size <= enough:
                break
            direction = rest + size / before * direction
        return found if bool(found.any()) else -slope
