"""A convex problem over a matrix: least squares with a penalty, and its solution by accelerated proximal gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from torchlasso.penalties import Penalty

ROWS, COLUMNS, SAMPLES = 8, 6, 60


class MatrixProblem:
    """f(w) = ‖xw − y‖²/(2n) with a penalty; the truth has rank two, and four of eight rows are zero."""

    def __init__(self, penalty: Penalty, lam: float, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        truth = normal(ROWS, 2) @ normal(2, COLUMNS)
        truth[4:] = 0
        x = normal(SAMPLES, ROWS) + 0.5 * normal(SAMPLES, 1)
        self.x, self.y = x.to(dtype), (x @ truth + 0.3 * normal(SAMPLES, COLUMNS)).to(dtype)
        self.penalty, self.lam = penalty, lam

    def gradient(self, w: Tensor) -> Tensor:
        return self.x.T @ (self.x @ w - self.y) / SAMPLES

    def objective(self, w: Tensor) -> float:
        value = (self.x @ w - self.y).square().sum() / (2 * SAMPLES) + self.penalty.value(w, self.lam)
        return float(value)

    def distance(self, w: Tensor) -> float:
        """Return the distance of weights from a stationary point, in units of λ."""
        return float(self.penalty.subdiff_distance(w, self.gradient(w), self.lam).max()) / self.lam

    def solution(self) -> Tensor:
        """Solve it by the method of Beck and Teboulle (2009), with restarts, to the last digits."""
        step = SAMPLES / float(torch.linalg.matrix_norm(self.x, 2)) ** 2
        w = ahead = torch.zeros(ROWS, COLUMNS, dtype=self.x.dtype)
        momentum = 1.0
        for _ in range(5000):
            new = self.penalty.prox(ahead - step * self.gradient(ahead), self.lam, step)
            if ((ahead - new) * (new - w)).sum() > 0:
                momentum = 1.0
            later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = new + (momentum - 1) / later * (new - w)
            change, w, momentum = (new - w).abs().max(), new, later
            if change <= 4 * torch.finfo(w.dtype).eps * w.abs().max():  # singular values are never equal to the bit
                break
        assert self.distance(w) < 1e-8
        return w
