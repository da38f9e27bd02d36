"""The separable penalties: each one class, given by φ, its derivative and its scalar prox."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from torchlasso._core.arguments import shown
from torchlasso.penalties.base import Near, Separable, register
from torchlasso.penalties.blocks import Strength
from torchlasso.penalties.diagonal_prox import is_better, shrink, shrink_flattening, shrink_near, to_unit_scale
from torchlasso.penalties.magnitudes import divide


def _like(r: Tensor, lam: Strength) -> Tensor:
    return torch.as_tensor(lam, dtype=r.dtype, device=r.device).expand_as(r)


def _check(name: str, value: float, low: float, high: float = math.inf, *, low_open: bool = True) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number; got {shown(value)}")
    if not (low < value or (value == low and not low_open)) or not value <= high or math.isinf(value):
        bounds = f"{'above' if low_open else 'at least'} {low:g}" + (
            f" and at most {high:g}" if high < math.inf else ""
        )
        raise ValueError(f"{name} must be a number {bounds}; got {value!r}")


@register("l1")
@dataclass(frozen=True, kw_only=True)
class L1(Separable):
    """The lasso penalty φ(r) = λr; over groups the group lasso, over singular values the nuclear norm.

    Tibshirani 1996; Yuan and Lin 2006.

    Examples:
        >>> L1().prox(torch.tensor([3.0, -0.5, 1.0]), lam=1.0, step=1.0)
        tensor([2., 0., 0.])
    """

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * r

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        return _like(r, lam)

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        return torch.relu(r - step * lam)

    def prox_rows(self, z: Tensor, lam: Strength, step: Tensor) -> Tensor:
        return shrink(z, step * lam)[0]

    def prox_near_rows(self, over: Tensor, under: Tensor, metric: Tensor, lam: Tensor, start: Tensor) -> Near:
        return shrink_near(over, under, metric, lam, start)


@register("elastic-net")
@dataclass(frozen=True, kw_only=True)
class ElasticNet(Separable):
    """The elastic net φ(r) = λ(ρr + (1−ρ)r²/2): sparse, with correlated inputs kept together.

    Zou and Hastie 2005.

    Args:
        l1_ratio: ρ in (0, 1], the share of the absolute value (as in scikit-learn).

    Examples:
        >>> ElasticNet(l1_ratio=0.5).prox(torch.tensor([3.5, -0.5]), lam=1.0, step=1.0)
        tensor([2., 0.])
    """

    l1_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("l1_ratio", self.l1_ratio, 0, 1)

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * (self.l1_ratio * r + (1 - self.l1_ratio) / 2 * r.square())

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * (self.l1_ratio + (1 - self.l1_ratio) * r)

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        return torch.relu(r - step * (lam * self.l1_ratio)) / (1 + step * (lam * (1 - self.l1_ratio)))

    def prox_rows(self, z: Tensor, lam: Strength, step: Tensor) -> Tensor:
        # The quadratic part only rescales the point and the metric of the group lasso.
        scale = 1 + step * lam * (1 - self.l1_ratio)
        return shrink(z / scale, step / scale * lam * self.l1_ratio)[0]

    def prox_near_rows(self, over: Tensor, under: Tensor, metric: Tensor, lam: Tensor, start: Tensor) -> Near:
        # The quadratic part adds to the metric; a row that is not solved has to come back as z in the original metric.
        quadratic = lam * (1 - self.l1_ratio)
        u, near = shrink_near(over, under, metric + quadratic, lam * self.l1_ratio, start)
        return torch.where(near[:, None], u, u * (1 + quadratic / metric)), near


@register("mcp")
@dataclass(frozen=True, kw_only=True)
class MCP(Separable):
    """The minimax concave penalty φ(r) = λr − r²/(2γ) up to r = γλ, then constant: large weights are not shrunk.

    Zhang 2010.

    Args:
        gamma: γ > 0, in units of the step: the smaller, the sooner it flattens.

    Examples:
        >>> MCP(gamma=3.0).prox(torch.tensor([5.0, 2.0, -0.5]), lam=1.0, step=1.0)
        tensor([5.0000, 1.5000, 0.0000])
    """

    convex: ClassVar[bool] = False
    gamma: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("gamma", self.gamma, 0)

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        flat = torch.minimum(r, _like(r, self.gamma * lam))
        return flat * (lam - flat / (2 * self.gamma))

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        return (lam - r / self.gamma).clamp_min(0)

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        lam, step = _like(r, lam), _like(r, step)
        firm = ((r - step * lam) / (1 - step / self.gamma)).clamp_min(0)
        firm = torch.where(r <= self.gamma * lam, torch.minimum(firm, r), r)
        # From step γ on the scalar problem is concave up to γλ: a hard threshold.
        hard = torch.where(r <= lam * (self.gamma * step).sqrt(), torch.zeros_like(r), r)
        return torch.where(step < self.gamma, firm, hard)

    def prox_rows(self, z: Tensor, lam: Strength, step: Tensor) -> Tensor:
        unit, strength, scale = to_unit_scale(z, lam)
        inner, _ = shrink_flattening(unit, step, strength, self.gamma)
        better = is_better(inner, unit, unit, step, lambda r: self.phi(r, strength))
        return torch.where(better, scale * inner, z)


@register("scad")
@dataclass(frozen=True, kw_only=True)
class SCAD(Separable):
    """The smoothly clipped absolute deviation: λr up to λ, a parabola up to aλ, then constant λ²(a+1)/2.

    Fan and Li 2001.

    Args:
        a: a > 2, where it becomes flat, in units of λ.

    Examples:
        >>> SCAD(a=3.7).prox(torch.tensor([5.0, 1.5, -0.5]), lam=1.0, step=1.0)
        tensor([5.0000, 0.5000, 0.0000])
    """

    convex: ClassVar[bool] = False
    a: float = 3.7

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("a", self.a, 2)

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        lam, a = _like(r, lam), self.a
        beyond = torch.relu(torch.minimum(r, a * lam) - lam)  # at r = λ its derivative is 0, and only λr contributes
        return lam * r.clamp_max(lam) + beyond * (lam - beyond / (2 * (a - 1)))

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        lam = _like(r, lam)
        return torch.minimum(lam, ((self.a * lam - r) / (self.a - 1)).clamp_min(0))

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        lam, step, a = _like(r, lam), _like(r, step), self.a
        soft = (r - step * lam).clamp_min(0)
        middle = ((a - 1) * r - step * a * lam) / (a - 1 - step)
        smooth = torch.where(r <= (1 + step) * lam, soft, torch.where(r <= a * lam, torch.minimum(middle, r), r))
        # From step a − 1 on the parabola is concave in the scalar problem: the minimum is on the outer pieces.
        # Their costs are compared in units of λ², which may be too large for a number.
        x = r / lam
        near, far = torch.clamp(x - step, 0, 1), torch.clamp_min(x, a)
        cost_near = (near - x).square() / 2 + step * near
        cost_far = (far - x).square() / 2 + step * ((a + 1) / 2)
        split = torch.where(cost_near <= cost_far, torch.minimum(soft, lam), torch.maximum(r, a * lam))
        return torch.where(lam == 0, r, torch.where(step < a - 1, smooth, split))

    def prox_rows(self, z: Tensor, lam: Strength, step: Tensor) -> Tensor:
        a = self.a
        unit, strength, scale = to_unit_scale(z, lam)
        inner, theta = shrink(unit, step * strength)  # theta = ‖inner‖, the solution where it is at most λ
        middle, _ = shrink_flattening(unit, step, strength * (a / (a - 1)), a - 1, start=theta * (a / (a - 1)))
        inner = torch.where(theta <= strength, inner, middle)
        better = is_better(inner, unit, unit, step, lambda r: self.phi(r, strength))
        return torch.where(better, scale * inner, z)


@register("log-sum")
@dataclass(frozen=True, kw_only=True)
class LogSum(Separable):
    """The log-sum penalty φ(r) = λθ log(1 + r/θ): between L1 (θ → ∞) and counting (θ → 0).

    Candès, Wakin and Boyd 2008.

    Args:
        theta: θ > 0, the magnitude at which the slope has halved.

    Examples:
        >>> LogSum(theta=1.0).prox(torch.tensor([4.0, -1.0]), lam=1.0, step=1.0)
        tensor([3.7913, 0.0000])
    """

    convex: ClassVar[bool] = False
    theta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("theta", self.theta, 0)

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * self.theta * torch.log1p(r / self.theta)

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * self.theta / (self.theta + r)

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        theta, t = self.theta, _like(r, step * lam)
        share = t / (r + theta) * (4 * theta / (r + theta))  # 4tθ/(r + θ)², above 1 where there is no root
        root = (r + theta) * (1 - share).clamp_min(0).sqrt()
        # The larger root of u² + (θ − r)u + θ(t − r) = 0, in the form without cancellation for either sign of r − θ.
        large = (root + (r - theta)) / 2
        small = divide(2 * theta * (r - t), root + (theta - r))
        u = torch.where(r >= theta, large, small).clamp_min(0)
        # objective at 0 less objective at u, over u
        gain = r - u / 2 - t * divide(theta * torch.log1p(u / theta), u)
        # compared this way round so that NaN does not become zero
        zero = torch.where(t <= theta, r <= t, (share > 1) | (gain <= 0))
        return torch.where(t == 0, r, torch.where(zero, torch.zeros_like(r), torch.minimum(u, r)))


@register("l-half")
@dataclass(frozen=True, kw_only=True)
class LHalf(Separable):
    """The ℓ½ penalty φ(r) = λ√r: an infinite slope at zero, so that w = 0 is stationary for every λ > 0.

    Xu, Chang, Xu and Zhang 2012 (half thresholding).

    Examples:
        >>> LHalf().prox(torch.tensor([4.0, -1.0]), lam=1.0, step=1.0)
        tensor([3.7415, 0.0000])
    """

    convex: ClassVar[bool] = False

    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        return lam * r.sqrt()

    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        lam = _like(r, lam)
        return torch.where(lam == 0, 0.0, lam / (2 * r.sqrt()))

    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        t = _like(r, step * lam)
        # cos φ = (t/4)(r/3)^(−3/2), at most √2/2 above the threshold 3/2 t^(2/3)
        angle = torch.arccos((t / r * (0.75 / (r / 3).sqrt())).clamp(0, 1))
        u = 2 / 3 * r * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle))
        return torch.where(t == 0, r, torch.where(r <= 1.5 * t ** (2 / 3), torch.zeros_like(r), torch.minimum(u, r)))
