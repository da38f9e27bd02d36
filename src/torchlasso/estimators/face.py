"""The objective over groups of inputs that are not zero, where it is smooth, and its Newton direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.estimators.input_groups import InputGroups
from torchlasso.estimators.smooth import Curvature, SmoothLoss

LARGEST, CONJUGATE = 1000, 500  # the most numbers with a dense matrix of curvature; the most steps without
INEXACT = 0.01  # the rest at which they end, relative to the first one: the next Newton step goes on from there


@dataclass(frozen=True)
class Face:
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
        bend = self.loss.curvature(self.x @ at)
        if at.numel() > LARGEST:
            return self._conjugate_gradients(at, slope, bend)
        curvature = self._curvature(at, bend)
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

    def _curvature(self, at: Tensor, bend: Curvature) -> Tensor:
        """Return ∇², (rows · q, rows · q)."""
        size, q = at.shape
        found = bend.between(self.x)
        factors, bent = self._bend(at)
        found.diagonal().add_(factors.expand_as(at).reshape(-1))
        same = self.groups.numbers[:, None] == self.groups.numbers
        outer = torch.einsum("ai,bj->aibj", bent, bent) * same[:, None, :, None]
        return found - outer.reshape(size * q, size * q)

    def _conjugate_gradients(self, at: Tensor, slope: Tensor, bend: Curvature) -> Tensor:
        """Solve ∇²·d = −slope step by step, as far as the curvature reaches.

        The steps are preconditioned by a mean curvature of the loss, and by that of the penalty, which is large across
        groups that are nearly zero, and none along them.
        """
        factors, bent = self._bend(at)
        groups = self.groups
        loss = float((slope * (self.x.mT @ bend.times(self.x @ slope))).sum() / slope.square().sum())
        loss = max(loss, 1e-12)
        norms = groups.norms(at)
        along_each = at * (1 / norms).where((norms > 0) & (groups.l1 > 0), 0.0)[groups.numbers, None]
        radial = 1 / (loss + self.lam * groups.l2[groups.numbers, None]) - 1 / (factors + loss)

        def conditioned(rest: Tensor) -> Tensor:
            along = at.new_zeros(len(groups.l1)).index_add(0, groups.numbers, (along_each * rest).sum(dim=1))
            return rest / (factors + loss) + radial * along_each * along[groups.numbers, None]

        found, rest = torch.zeros_like(at), -slope
        direction = conditioned(rest)
        size = (rest * direction).sum()
        enough = INEXACT**2 * size
        for _ in range(CONJUGATE):
            curved = self.x.mT @ bend.times(self.x @ direction) + factors * direction
            along = at.new_zeros(len(groups.l1)).index_add(0, groups.numbers, (bent * direction).sum(dim=1))
            curved = curved - bent * along[groups.numbers, None]
            curvature = (direction * curved).sum()
            if not curvature > 1e-14 * direction.square().sum():
                break
            length = size / curvature
            found, rest = found + length * direction, rest - length * curved
            better = conditioned(rest)
            size, before = (rest * better).sum(), size
            if size <= enough:
                break
            direction = better + size / before * direction
        return found if bool(found.any()) else -slope
