"""Disjoint sets of weights as blocks: rows, columns, filters, heads, runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_kind
from torchlasso.penalties.blocks.attention_layers import output_projections, projections
from torchlasso.penalties.blocks.base import Blocks, Rebuild, need, need_whole, register
from torchlasso.penalties.magnitudes import computed, divide, norms


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

    def sizes_in(self, tensors: Sequence[Tensor]) -> list[list[tuple[int, int | Tensor]]]:
        return [[(i, self.sizes(tensor))] for i, tensor in enumerate(tensors)]

    def sizes(self, w: Tensor) -> Tensor | int:
        """Return the number of weights of each block: one number if all are alike, or a tensor, (n_blocks,)."""
        return self.rows(w)[0].shape[1]


def _split(w: Tensor, shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[Tensor, Rebuild]:
    """Reshape ``w``, bring ``dims`` to the front, flatten them to blocks and the rest to their weights."""
    back = w.shape
    order = dims + tuple(d for d in range(len(shape)) if d not in dims)
    inverse = tuple(order.index(d) for d in range(len(shape)))
    parts = computed(w).reshape(shape).permute(order)
    rows = parts.reshape(math.prod([shape[d] for d in dims]), -1)
    return rows, lambda new: new.reshape(parts.shape).permute(inverse).reshape(back).to(w.dtype)


def _runs(w: Tensor, n: int) -> tuple[int, int] | None:
    """Return (n, size of a run) for n runs of w."""
    return (n, w.numel() // n) if n and w.numel() and w.numel() % n == 0 else None


@register("rows")
@dataclass(frozen=True)
class Rows(Partition):
    """Slices w[i, …] of the first dimension: a neuron's incoming weights, a token's embedding."""

    stable: ClassVar[bool] = True
    noun: ClassVar[str] = "units"

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, 1)
        return _split(w, tuple(w.shape), (0,))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (0,)


@register("columns")
@dataclass(frozen=True)
class Columns(Partition):
    """Slices w[:, j, …] of the second dimension: the weights that read one input feature."""

    stable: ClassVar[bool] = True
    noun: ClassVar[str] = "features"

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, 2)
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
        need_whole(self, 1, groups=self.groups)

    def fit(self, module: nn.Module, name: str) -> Blocks:
        if not isinstance(module, nn.modules.conv._ConvNd):
            return self
        # only a kernel is transposed: a bias has a number for each filter
        return replace(self, transposed=module.transposed and name != "bias", groups=module.groups)

    def _second(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        # With groups, the second dimension counts within a group, and the first holds the groups one after the other.
        need(self, w, 2)
        if w.shape[0] % self.groups:
            raise ValueError(f"{self}: {w.shape[0]} channels do not divide into {self.groups} groups")
        return _split(w, (self.groups, w.shape[0] // self.groups, *w.shape[1:]), (0, 2))


@register("filters")
@dataclass(frozen=True)
class Filters(_Channels):
    """Output channels of a convolution or linear layer: all the weights that make one of them.

    Args:
        weighted: see :class:`Partition`.
        transposed: the weight is laid out (in, out / groups, …), as transposed convolutions have it. ``param_groups``
            reads it from the layer.
        groups: the groups of the convolution, likewise.
    """

    noun: ClassVar[str] = "units"

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, 1)
        return self._second(w) if self.transposed else _split(w, tuple(w.shape), (0,))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() and not self.transposed else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (1,) if self.transposed else (0,)


@register("input-channels")
@dataclass(frozen=True)
class InputChannels(_Channels):
    """Input channels of a convolution or linear layer: all the weights that read one of them.

    Args: as for :class:`Filters`.
    """

    noun: ClassVar[str] = "features"

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, 2)
        return _split(w, tuple(w.shape), (0,)) if self.transposed else self._second(w)

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        return _runs(w, w.shape[0]) if w.dim() > 1 and self.transposed else None

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        return (0,) if self.transposed else (1,)


@register("heads")
@dataclass(frozen=True)
class Heads(Partition):
    """Attention heads: equal runs of the rows of a projection, each by itself.

    :func:`torchlasso.attention_heads` has one block for all projections of a head.

    Args:
        n: the number of heads; it must divide the dimension. None: ``param_groups`` finds it, ``dim`` and ``parts`` in
            the attention that has the projection, an ``nn.MultiheadAttention`` or one with the names of transformers.
        dim: the dimension that is divided: 0 for the projections into the heads, 1 for the one out of them.
        parts: how many projections the dimension holds one after the other, 3 for a joint query, key and value weight;
            ``param_groups`` reads it from a ``MultiheadAttention``.

    Examples:
        >>> import torchlasso as tl
        >>> model = nn.TransformerEncoderLayer(d_model=12, nhead=3)
        >>> rule = tl.Rule("self_attn.*", tl.L1(over=Heads()))
        >>> [(g["names"], g["penalty"].over.n) for g in tl.param_groups(model, rule, lam=0.1) if g["penalty"]]
        [(['self_attn.in_proj_weight'], 3), (['self_attn.out_proj.weight'], 3)]
    """

    noun: ClassVar[str] = "heads"
    n: int | None = None
    dim: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        need_whole(self, 1, parts=self.parts, **({} if self.n is None else {"n": self.n}))
        need_whole(self, 0, dim=self.dim)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        if self.n is None:
            raise ValueError("Heads: give n, the number of heads, or let torchlasso.param_groups find it in the model")
        need(self, w, self.dim + 1)
        shape, length = tuple(w.shape), w.shape[self.dim]
        if length % (self.n * self.parts):
            raise ValueError(f"{self}: dimension {self.dim} of {shape} does not divide into {self.parts} × {self.n}")
        inner = (self.parts, self.n, length // (self.n * self.parts))
        return _split(w, (*shape[: self.dim], *inner, *shape[self.dim + 1 :]), (self.dim + 1,))

    def within(self, modules: Sequence[nn.Module], parameter: Tensor, name: str) -> Blocks:
        if self.n is not None:
            return self
        for module in modules:
            for found in (*projections(module), *output_projections(module)):
                if found.parameter is parameter:
                    return replace(self, n=found.heads, dim=found.dim, parts=found.parts)
        raise ValueError(
            f"Heads: the number of heads of {name} is not known. It is found for projections of an "
            "nn.MultiheadAttention, and of attention with the names of transformers (q_proj, query, c_attn, out_proj, "
            "…): let the rule match only these, or give n, as in Heads(n=8)"
        )

    def fit(self, module: nn.Module, name: str) -> Blocks:
        joint = isinstance(module, nn.MultiheadAttention) and name.startswith("in_proj")
        return replace(self, parts=3) if joint else self


@register("chunks")
@dataclass(frozen=True)
class Chunks(Partition):
    """Runs of n consecutive weights in memory order; the last one may be shorter.

    Args:
        n: the length of a run.
    """

    n: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        need_whole(self, 1, n=self.n)

    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        need(self, w, 1)
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
        # where the dimensions that follow hold whole runs, a run lies within one index
        return tuple(d for d in range(w.dim()) if math.prod(w.shape[d + 1 :]) % self.n == 0)
