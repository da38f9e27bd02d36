"""Penalties: their interface, the separable family and the registry of names."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_kind, shown
from torchlasso._core.registry import Registry
from torchlasso.distributed.sharding import gathered, shardwise, shardwise_mask, summed
from torchlasso.penalties.blocks import Blocks, Elements, Strength
from torchlasso.penalties.magnitudes import as_complex, as_reals, divide

Near = tuple[Tensor, Tensor]
_REGISTRY: Registry[str, type[Penalty]] = Registry("penalty")
P = TypeVar("P", bound="type[Penalty]")


def register(name: str) -> Callable[[P], P]:
    """Return a class decorator: the command line, the tests and the documentation know the penalty by ``name``.

    Raises:
        ValueError: another penalty has the name.
        TypeError: the decorated object is not a penalty.
    """

    def entered(cls: P) -> P:
        if not (isinstance(cls, type) and issubclass(cls, Penalty)):
            raise TypeError(f"register({name!r}) decorates a class that derives from Penalty; got {shown(cls)}")
        _REGISTRY.enter(name, cls)
        return cls

    return entered


def registry() -> Mapping[str, type[Penalty]]:
    """Return all registered penalties by name.

    >>> registry()["l1"]
    <class 'torchlasso.penalties.separable.L1'>
    """
    return _REGISTRY


def check_strength(lam: Any, name: str = "lam") -> None:
    """Raise ``ValueError`` unless ``lam`` is a finite number, or tensor of numbers, of at least 0."""
    valid = (
        bool((torch.isfinite(lam) & (lam >= 0)).all())
        if isinstance(lam, Tensor)
        else isinstance(lam, int | float) and not isinstance(lam, bool) and math.isfinite(lam) and lam >= 0
    )
    if not valid:
        raise ValueError(f"{name} must be a finite number of at least 0; got {lam!r}")


class Penalty(ABC):
    """A penalty Ω_λ(w) on one weight tensor, without its strength: λ is an argument of each method, never a field.

    Penalties are frozen dataclasses without tensors, so that they can be compared, copied and pickled.
    λ is a number, or a tensor that broadcasts to the magnitudes (one λ per block).

    They are written for plain tensors, and work on sharded ones (``DTensor``) too: on shards that hold whole blocks, or
    on the whole tensor. Then every process has to make the call, and the result is the same on each; ``prox`` and
    ``alive`` return a tensor sharded as their first argument is.

    Attributes:
        over: the blocks; a penalty that is not made of blocks leaves them as they are here. Where they reach over
            several tensors, the methods are those of :meth:`as_view`, on each of the blocks' views.
    """

    convex: ClassVar[bool] = True
    over: Blocks = Elements()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, adapt in _OVER_SHARDS.items():
            if name in vars(cls):
                setattr(cls, name, adapt(vars(cls)[name]))

    @abstractmethod
    def value(self, w: Tensor, lam: Strength) -> Tensor:
        """Return Ω_λ(w), a scalar; differentiable wherever the penalty is."""

    @abstractmethod
    def prox(self, w: Tensor, lam: Strength, step: float | Tensor) -> Tensor:
        """Return argmin_u ½‖u − w‖² + step·Ω_λ(u), or argmin_u Σ (u_i − w_i)²/(2·step_i) + Ω_λ(u).

        It is a global minimum for every step > 0, also where the penalty is not convex. ``w`` is left as it is.

        Args:
            w: the weights.
            lam: λ.
            step: a number, or a tensor like ``w`` with a step for each weight; for complex weights its real and
                imaginary parts are the steps of theirs.

        Raises:
            ValueError: the penalty has no sound prox under a per-coordinate step.
        """

    @abstractmethod
    def subdiff_distance(self, w: Tensor, grad: Tensor, lam: Strength) -> Tensor:
        """Return dist(−grad, ∂Ω_λ(w)) per block: 0 where ``w`` is stationary for a loss with this gradient."""

    @abstractmethod
    def support(self, w: Tensor) -> Tensor:
        """Mark the blocks that are not zero: bool, of the shape of the magnitudes."""

    def zero_from(self, w: Tensor) -> Tensor | None:
        """Return the least λ at which the prox makes each block zero, for a step of 1; None if no formula gives it.

        Examples:
            >>> import torchlasso as tl
            >>> tl.L1(over=tl.Rows(weighted=False)).zero_from(torch.tensor([[6.0, 0.0], [3.0, 4.0]]))
            tensor([6., 5.])
        """
        return None

    @abstractmethod
    def lambda_max(self, grad: Tensor) -> Tensor:
        """Return the least λ for which w = 0 is stationary, a scalar, given the gradient of the loss at w = 0."""

    def fit(self, module: nn.Module, name: str) -> Penalty:
        """Return the same penalty for the layout in which ``module`` keeps its parameter ``name``."""
        return self.with_blocks(self.over.fit(module, name))

    def within(self, modules: Sequence[nn.Module], parameter: Tensor, name: str) -> Penalty:
        """Return the same penalty with what the modules around a parameter say about its blocks."""
        return self.with_blocks(self.over.within(modules, parameter, name))

    def as_view(self) -> Penalty:
        """Return the penalty of each view of the blocks: for most kinds of blocks the penalty itself.

        Examples:
            >>> import torchlasso as tl
            >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
            >>> tl.L1(over=tl.Units(net, torch.randn(3, 2))).as_view()
            L1(over=Rows(weighted=True))
        """
        return self.with_blocks(self.over.as_view())

    def with_blocks(self, over: Blocks) -> Penalty:
        """Return the same penalty over other blocks."""
        return self if over is self.over else replace(self, over=over)  # type: ignore[type-var]

    def alive(self, mask: Tensor) -> Tensor:
        """Return a mask of the weights that the penalty keeps, given a mask of those that are not zero.

        A penalty of whole blocks keeps a block if any of its weights is not zero: it did not make the zeros in it.
        """
        return mask

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        """Return the dimensions along which ``w`` may be sharded so that the penalty is the sum over its shards."""
        return ()


_OVER_SHARDS: dict[str, Callable[[Callable[..., Tensor]], Callable[..., Tensor]]] = {
    "value": summed,
    "prox": shardwise,
    "subdiff_distance": gathered,
    "support": gathered,
    "zero_from": gathered,
    "lambda_max": gathered,
    "alive": shardwise_mask,
}


@dataclass(frozen=True, kw_only=True)
class Separable(Penalty):
    """A penalty Σ_g φ_{λ_g}(r_g): one scalar function of each block's magnitude, λ_g = λ times the block's weight.

    A subclass gives φ, its derivative and its scalar prox; everything else follows from them.

    Args:
        over: the blocks, which define the magnitudes.
    """

    over: Blocks = Elements()

    def __post_init__(self) -> None:
        check_kind(f"{type(self).__name__}: over", self.over, Blocks, "blocks such as torchlasso.Filters()")

    @abstractmethod
    def phi(self, r: Tensor, lam: Strength) -> Tensor:
        """Return φ_λ(r) for r ≥ 0."""

    @abstractmethod
    def dphi(self, r: Tensor, lam: Strength) -> Tensor:
        """Return φ′_λ(r) for r > 0, and the limit φ′_λ(0+) at r = 0; linear in λ there."""

    @abstractmethod
    def prox_phi(self, r: Tensor, lam: Strength, step: Strength) -> Tensor:
        """Return the global argmin_{u ≥ 0} ½(u − r)² + step·φ_λ(u), for r ≥ 0 and every step ≥ 0."""

    def prox_rows(self, z: Tensor, lam: Strength, step: Tensor) -> Tensor:
        """Return argmin_u Σ_i (u_i − z_i)²/(2·step_i) + φ_λ(‖u‖₂) for each row of ``z``.

        Args:
            z: (n, size).
            lam: a number, or (n, 1).
            step: (n, size).
        """
        raise ValueError(
            f"{type(self).__name__} over {self.over} has no sound prox under a per-coordinate step such as Adam's: "
            "use ProxSGD, or a penalty that has one (l1, elastic-net, mcp, scad, sparse-group)"
        )

    def prox_near_rows(self, over: Tensor, under: Tensor, metric: Tensor, lam: Tensor, start: Tensor) -> Near:
        """Return argmin_u Σ_i d_i(u_i − z_i)²/2 + φ_λ(‖u‖₂) for the rows whose norm is near ``start``, else z.

        Optional: the fused step of an optimizer with a per-coordinate step does most rows by it.

        Args:
            over, under: d z as a quotient that has not been computed, (n, size).
            metric: d, (n, size).
            lam: λ of the rows.
            start: the norms, (n,).

        Returns:
            The solution, and which rows are solved, (n,).
        """
        raise NotImplementedError

    def value(self, w: Tensor, lam: Strength) -> Tensor:
        r, _ = self.over.decompose(w)
        cost = self.phi(r, lam * self.over.weights(w))
        if not self.over.symmetric:
            cost = cost.masked_fill(self.over.forbidden(w), torch.inf)
        return (cost.masked_fill(self.over.spared(cost), 0.0) if self.over.spares else cost).sum()

    def prox(self, w: Tensor, lam: Strength, step: float | Tensor) -> Tensor:
        lam = lam * self.over.weights(w)
        if isinstance(step, Tensor) and step.dim() and (w.is_complex() or not self.over.single):
            rows, restore = self.over.rows(w)
            z, steps = as_reals(rows), as_reals(self.over.rows(step)[0])
            lam = lam.reshape(-1, 1) if isinstance(lam, Tensor) and lam.dim() else lam
            if rows.is_complex():  # a complex weight is a group of two: its real and its imaginary part
                return restore(as_complex(self.prox_rows(z, lam, steps), rows))
            if z.shape[1] == 1:  # blocks of one weight: the scalar prox serves
                return restore(self.prox_phi(z.abs(), lam, steps).copysign(z).add_(0.0))
            return restore(self.prox_rows(z, lam, steps))
        r, rebuild = self.over.decompose(w)
        u = self.prox_phi(r, lam, step)
        if self.over.spares:  # Ω is the least over what may be spared, and so is the minimum
            cost = divide((u - r).square(), 2 * torch.as_tensor(step)) + self.phi(u, lam)
            u = torch.where(self.over.spared(cost), r, u)
        return rebuild(u)

    def subdiff_distance(self, w: Tensor, grad: Tensor, lam: Strength) -> Tensor:
        lam = lam * self.over.weights(w)

        def slope(r: Tensor) -> Tensor:
            if not self.over.spares:
                return self.dphi(r, lam)
            # in the limiting subdifferential any zeros may be spared: best the ones with the smallest gradients
            pulled = self.over.decompose(grad)[0]
            spared = self.over.spared(torch.where(r == 0, -pulled, self.phi(r, lam)))
            return self.dphi(r, lam).masked_fill(spared, 0.0)

        return self.over.distance(w, grad, slope)

    def support(self, w: Tensor) -> Tensor:
        return self.over.decompose(w)[0] != 0

    def zero_from(self, w: Tensor) -> Tensor | None:
        if not self.convex or self.over.spares or not self.over.of_weights:
            return None
        # the minimum is at zero if the slope there is not below r: λ·weight·φ′₁(0+) ≥ r
        r, _ = self.over.decompose(w)
        scale = self.dphi(r.new_zeros(()), 1.0) * self.over.weights(w)
        return r if (scale == 1).all() else r / scale

    def lambda_max(self, grad: Tensor) -> Tensor:
        # −grad ∈ ∂Ω_λ(0), the ball of radius λ·weight·φ′₁(0+) around 0 in every block
        r = self.over.pulls(grad)
        if self.over.spares and bool((r > 0).logical_and(self.over.spared(-r)).any()):
            return r.new_full((), torch.inf)  # no λ holds back a spared weight
        slope = self.dphi(torch.zeros((), dtype=r.dtype, device=r.device), 1.0)
        return (r / self.over.weights(grad)).max() / slope

    def alive(self, mask: Tensor) -> Tensor:
        return self.over.of_any(mask)

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return self.over.whole_along(w)
