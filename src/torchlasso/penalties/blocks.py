"""Blocks: which magnitudes of a tensor a penalty acts on.

A penalty is a scalar function of a magnitude r ≥ 0. The blocks say what the magnitudes are: the absolute values of
single weights, the Euclidean norms of rows, filters or heads, or singular values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_kind
from torchlasso.penalties.magnitudes import computed, divide, largest_of, norms, sign

Rebuild = Callable[[Tensor], Tensor]


class Blocks(ABC):
    """What the magnitudes of a weight tensor are."""

    single: ClassVar[bool] = False  # whether a block is one coordinate, so that a per-coordinate step is one per block
    stable: ClassVar[bool] = False  # whether blocks stay what they are, with fewer weights, where slices are cut out
    spares: ClassVar[bool] = False  # whether some of them are not penalised, as spared() says

    @abstractmethod
    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        """The magnitudes r of ``w``, and the function that puts new magnitudes in their place.

        Examples:
            >>> r, rebuild = Rows().decompose(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
            >>> r
            tensor([5., 0.])
            >>> rebuild(torch.tensor([10.0, 1.0]))
            tensor([[6., 8.],
                    [0., 0.]])
        """

    @abstractmethod
    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        """dist(−grad, ∂Ω(w)) per block, for Ω = Σ φ(r) with the derivative ``dphi``: r ↦ φ′(r), φ′(0+) at r = 0."""

    @abstractmethod
    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        """``w`` as a matrix of one block a row, (n_blocks, size), and the function that puts such a matrix back."""

    def of_any(self, mask: Tensor) -> Tensor:
        """Return a mask of the weights whose block has any that is in ``mask``.

        Examples:
            >>> Rows().of_any(torch.tensor([[True, False], [False, False]]))
            tensor([[ True,  True],
                    [False, False]])
        """
        if not mask.numel():
            return mask
        rows, restore = self.rows(mask)
        return restore(rows.amax(dim=1, keepdim=True).expand_as(rows))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        """(n_blocks, size) if the blocks of a contiguous ``w`` lie in memory one after the other, as rows do.

        Examples:
            >>> w = torch.ones(6, 4, 3)
            >>> Rows().in_memory(w), Chunks(n=4).in_memory(w), Columns().in_memory(w)
            ((6, 12), (18, 4), None)
        """
        return None

    def weights(self, w: Tensor) -> Tensor | float:
        """The weight of each block, which multiplies λ: a number, or a tensor that broadcasts to the magnitudes."""
        return 1.0

    def spared(self, cost: Tensor) -> Tensor:
        """Which blocks are not penalised: a mask of the shape of the magnitudes, given what each of them would cost."""
        return torch.zeros_like(cost, dtype=torch.bool)

    def fit(self, module: nn.Module, name: str) -> Blocks:
        """The same blocks for the layout in which ``module`` keeps its parameter ``name``."""
        return self

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        """The dimensions of ``w`` along which it may be cut: the blocks of any slice of them are blocks of ``w``.

        Examples:
            >>> w = torch.ones(6, 4, 3)
            >>> Rows().whole_along(w), Elements().whole_along(w), Chunks(n=4).whole_along(w)
            ((0,), (0, 1, 2), (0,))
        """
        return ()


@dataclass(frozen=True)
class Elements(Blocks):
    """Single weights: r = |w_i|, of the shape of w."""

    single: ClassVar[bool] = True
    stable: ClassVar[bool] = True

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        # adding 0.0 makes −0.0 the plain zero
        return computed(w).abs(), lambda r: torch.copysign(r, w).add_(0.0).to(w.dtype)

    def of_any(self, mask: Tensor) -> Tensor:
        return mask

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        w, grad = computed(w), computed(grad)
        slope = dphi(w.abs())
        # the subdifferential is {φ′(r) sign(w)} where w ≠ 0 and [−φ′(0+), φ′(0+)] where w = 0
        return torch.where(w == 0, (grad.abs() - slope).clamp_min(0), (grad + slope * sign(w)).abs())

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        return computed(w).reshape(-1, 1), lambda rows: rows.reshape(w.shape).to(w.dtype)

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return tuple(range(w.dim()))


def _ahead(columns: Sequence[Tensor], i: int) -> Tensor:
    """How many columns are larger than column i, or as large and before it: for a few columns quicker than sorting."""
    ahead = torch.zeros_like(columns[i], dtype=torch.uint8)
    for j, other in enumerate(columns):
        if j != i:
            ahead += (other >= columns[i]) if j < i else (other > columns[i])
    return ahead


@dataclass(frozen=True)
class NM(Elements):
    """Single weights, of which the n largest of each m consecutive inputs are not penalised: for n:m sparsity.

    Under L1 this is the trimmed lasso of each m weights, λ times the sum of all but the n largest |w_i|: weights beyond
    the n become exact zeros as λ rises, and those that stay are not shrunk. Which ones are spared is part of each prox,
    the exact one: those that would cost most, (u − w)²/(2·step) + φ(u) at their own prox u. Under a step common to all
    they are the largest; under Adam's, which differ, it can be others. GPUs multiply by two of four at up to twice the
    speed, which :func:`torchlasso.accelerate` uses; for that the layer's inputs have to be a multiple of four.

    No λ makes w = 0 stationary, since n weights of each m are free: ``lambda_max`` is infinite. The certificate uses
    the limiting subdifferential, as the penalty is not convex.

    Bertsimas, Copenhaver and Mazumder 2017 (trimmed lasso); Mishra et al. 2021 (2:4 sparsity).

    Args:
        n: how many of each run stay; at least 1.
        m: the length of a run, above n; the last one of a row may be shorter.
        dim: the dimension of the inputs, along which runs lie: 1 for linear layers and convolutions. ``param_groups``
            reads it from transposed convolutions, where it is 0.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.tensor([[3.0, -0.5, 2.0, 1.5]])
        >>> tl.L1(over=NM(2, 4)).prox(w, lam=1.0, step=1.0)
        tensor([[3.0000, 0.0000, 2.0000, 0.5000]])
    """

    stable: ClassVar[bool] = False
    spares: ClassVar[bool] = True
    n: int = 2
    m: int = 4
    dim: int = 1

    def __post_init__(self) -> None:
        _need_whole(self, 1, n=self.n, m=self.m)
        _need_whole(self, 0, dim=self.dim)
        if self.n >= self.m:
            raise ValueError(f"{self}: n must be below m, or nothing is penalised")

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, self.dim + 1)
        return super().decompose(w)

    def spared(self, cost: Tensor) -> Tensor:
        runs = nn.functional.pad(cost.movedim(self.dim, -1), (0, -cost.shape[self.dim] % self.m), value=-torch.inf)
        columns = runs.reshape(-1, self.m).unbind(1)
        # what is not a number is not spared, so that it shows
        found = torch.stack([(_ahead(columns, i) < self.n) & ~columns[i].isnan() for i in range(self.m)], dim=1)
        return found.reshape(runs.shape)[..., : cost.shape[self.dim]].movedim(-1, self.dim)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise ValueError(f"{self} has no groups: use it with a penalty on single weights, such as L1")

    def fit(self, module: nn.Module, name: str) -> Blocks:
        transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
        return replace(self, dim=0) if transposed else self

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return tuple(d for d in range(w.dim()) if d != self.dim)


@dataclass(frozen=True)
class Partition(Blocks):
    """Disjoint sets of weights: r = ‖w_g‖₂, of shape (n_blocks,).

    Args:
        weighted: multiply λ of a block by √|g|, the square root of its size, so that one λ means the same for blocks
            of different sizes (Yuan and Lin 2006).
    """

    weighted: bool = True

    def __post_init__(self) -> None:
        check_kind(f"{type(self).__name__}: weighted", self.weighted, bool, "True or False")

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        rows, restore = self.rows(w)
        r = norms(rows)  # (n_blocks,)
        return r, lambda new: restore(rows * divide(new, r)[:, None])

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        rows, grads = self.rows(w)[0], self.rows(grad)[0]
        r = norms(rows)
        slope = dphi(r)
        # the subdifferential is {φ′(r) w/r} where r > 0 and the ball of radius φ′(0+) where r = 0
        at_zero = (norms(grads) - slope).clamp_min(0)
        away = norms(grads + divide(rows, r[:, None]) * slope.where(r != 0, 0.0)[:, None])
        return torch.where(r == 0, at_zero, away)

    def weights(self, w: Tensor) -> Tensor | float:
        return self.sizes(w) ** 0.5 if self.weighted else 1.0

    def sizes(self, w: Tensor) -> Tensor | int:
        """How many weights each block has: one number where all have as many, or a tensor of shape (n_blocks,)."""
        return self.rows(w)[0].shape[1]


def _split(w: Tensor, shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[Tensor, Rebuild]:
    """Reshape ``w``, bring ``dims`` to the front, flatten them to the blocks and the rest to what is in a block."""
    back = w.shape
    order = dims + tuple(d for d in range(len(shape)) if d not in dims)
    inverse = tuple(order.index(d) for d in range(len(shape)))
    parts = computed(w).reshape(shape).permute(order)
    rows = parts.reshape(math.prod([shape[d] for d in dims]), -1)
    return rows, lambda new: new.reshape(parts.shape).permute(inverse).reshape(back).to(w.dtype)


def _runs(w: Tensor, n: int) -> tuple[int, int] | None:
    """(n, size of a run) for n runs of w."""
    return (n, w.numel() // n) if n and w.numel() and w.numel() % n == 0 else None


def _need(blocks: Blocks, w: Tensor, dims: int) -> None:
    if w.dim() < dims or w.numel() == 0:
        raise ValueError(f"{blocks} needs a tensor with weights and at least {dims} dimensions; got {tuple(w.shape)}")


def _need_whole(blocks: Blocks, least: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{blocks}: {name} must be a whole number of at least {least}; got {value!r}")


@dataclass(frozen=True)
class Rows(Partition):
    """Slices w[i, …] of the first dimension: a neuron's incoming weights, a token's embedding."""

    stable: ClassVar[bool] = True

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, 1)
        return _split(w, tuple(w.shape), (0,))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (0,)


@dataclass(frozen=True)
class Columns(Partition):
    """Slices w[:, j, …] of the second dimension: what reads one input feature."""

    stable: ClassVar[bool] = True

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, 2)
        return _split(w, tuple(w.shape), (1,))

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (1,)


@dataclass(frozen=True)
class _Channels(Partition):
    stable: ClassVar[bool] = True
    transposed: bool = False
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_whole(self, 1, groups=self.groups)

    def fit(self, module: nn.Module, name: str) -> Blocks:
        if not isinstance(module, nn.modules.conv._ConvNd):
            return self
        return replace(self, transposed=module.transposed, groups=module.groups)

    def _second(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        # With groups, the second dimension counts within a group, and the first holds the groups one after the other.
        _need(self, w, 2)
        if w.shape[0] % self.groups:
            raise ValueError(f"{self}: {w.shape[0]} channels do not divide into {self.groups} groups")
        return _split(w, (self.groups, w.shape[0] // self.groups, *w.shape[1:]), (0, 2))


@dataclass(frozen=True)
class Filters(_Channels):
    """Output channels of a convolution or linear layer: all the weights that make one of them.

    Args:
        weighted: see :class:`Partition`.
        transposed: the weight is laid out (in, out / groups, …), as transposed convolutions have it. ``param_groups``
            reads it from the layer.
        groups: the groups of the convolution, likewise.
    """

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, 1)
        return self._second(w) if self.transposed else _split(w, tuple(w.shape), (0,))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() and not self.transposed else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (1,) if self.transposed else (0,)


@dataclass(frozen=True)
class InputChannels(_Channels):
    """Input channels of a convolution or linear layer: all the weights that read one of them.

    Args: as for :class:`Filters`.
    """

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, 2)
        return _split(w, tuple(w.shape), (0,)) if self.transposed else self._second(w)

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() > 1 and self.transposed else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (0,) if self.transposed else (1,)


@dataclass(frozen=True)
class Heads(Partition):
    """Attention heads: equal runs of the rows of a projection.

    Args:
        n: the number of heads; it must divide the dimension.
        dim: the dimension that is divided: 0 for the projections into the heads, 1 for the one out of them.
        parts: how many projections the dimension holds one after the other, 3 for a joint query, key and value weight;
            ``param_groups`` reads it from a ``MultiheadAttention``.
    """

    n: int = 1
    dim: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_whole(self, 1, n=self.n, parts=self.parts)
        _need_whole(self, 0, dim=self.dim)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, self.dim + 1)
        shape, length = tuple(w.shape), w.shape[self.dim]
        if length % (self.n * self.parts):
            raise ValueError(f"{self}: dimension {self.dim} of {shape} does not divide into {self.parts} × {self.n}")
        inner = (self.parts, self.n, length // (self.n * self.parts))
        return _split(w, (*shape[: self.dim], *inner, *shape[self.dim + 1 :]), (self.dim + 1,))

    def fit(self, module: nn.Module, name: str) -> Blocks:
        joint = isinstance(module, nn.MultiheadAttention) and name.startswith("in_proj")
        return replace(self, parts=3) if joint else self


@dataclass(frozen=True)
class Chunks(Partition):
    """Runs of n consecutive weights in memory order; the last one may be shorter.

    Args:
        n: the length of a run.
    """

    n: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_whole(self, 1, n=self.n)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        _need(self, w, 1)
        flat = nn.functional.pad(computed(w).reshape(-1), (0, -w.numel() % self.n))
        return flat.reshape(-1, self.n), lambda new: new.reshape(-1)[: w.numel()].reshape(w.shape).to(w.dtype)

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.numel() // self.n) if w.numel() % self.n == 0 else None

    def sizes(self, w: Tensor) -> Tensor | int:
        if w.numel() % self.n == 0:
            return self.n
        starts = torch.arange(0, w.numel(), self.n, device=w.device, dtype=computed(w).dtype)
        return (w.numel() - starts).clamp_max(self.n)  # (n_blocks,)

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        # where what follows in memory is made of whole runs, a run lies within one index
        return tuple(d for d in range(w.dim()) if math.prod(w.shape[d + 1 :]) % self.n == 0)


@dataclass(frozen=True)
class SingularValues(Blocks):
    """Singular values of the weight as a matrix of its first dimension against the rest: low rank, not zeros.

    A singular value at most σ_max · max(rows, columns) · ε, ε the precision, counts as zero, as in
    ``torch.linalg.matrix_rank``. Only steps common to the whole tensor are possible (``ProxSGD``): under a
    per-coordinate step the prox has no closed form.
    """

    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        u, s, vh = self._parts(w)
        return s, lambda r: ((u * r) @ vh).reshape(w.shape).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        u, s, vh = self._parts(w)
        slope = dphi(s)
        alive = s != 0
        u, vh = u * alive, vh * alive[:, None]
        residual = computed(grad).reshape(u.shape[0], -1) + (u * slope.where(alive, 0.0)) @ vh
        # ∂Ω = {U φ′(s) Vᵀ + N}: N lives outside the row and column spaces of w, with singular values up to φ′(0+)
        left = u.mT @ residual  # (k, columns)
        residual = residual - u @ left
        right = residual @ vh.mT  # (rows, k)
        tangent = torch.hypot(norms(left), norms(right.mT))
        normal = _svd(residual - right @ vh)[1]
        after = (torch.arange(len(s), device=s.device) - alive.sum()).clamp_min(0)
        return torch.where(alive, tangent, (normal[after] - slope).clamp_min(0))

    def of_any(self, mask: Tensor) -> Tensor:
        return mask  # no weight is of one singular value alone

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        raise ValueError(
            f"{self} has no prox under a per-coordinate step such as Adam's: use ProxSGD, or blocks of coordinates"
        )

    def _parts(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _need(self, w, 2)
        u, s, vh = _svd(computed(w).reshape(w.shape[0], -1))
        tolerance = s[:1] * (max(u.shape[0], vh.shape[1]) * torch.finfo(s.dtype).eps)
        return u, torch.where(s <= tolerance, torch.zeros_like(s), s), vh


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the thin decomposition; all of it is NaN, instead of an error, if a weight is not finite."""
    scale = largest_of(matrix.reshape(1, -1))
    finite = matrix.isfinite().all()
    u, s, vh = torch.linalg.svd(torch.where(finite, matrix / scale, 0.0), full_matrices=False)
    return torch.where(finite, u, torch.nan), torch.where(finite, s * scale[0], torch.nan), vh
