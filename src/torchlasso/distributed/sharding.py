"""Sharding: how a computation on plain tensors is done on those that several processes share.

FSDP2 and tensor parallelism keep a weight as a ``DTensor``, of which each process holds a shard. What treats every
block by itself (the prox, the sum of a penalty's values) is done on shards that hold whole blocks, each process its
own: on the shards as they are where the sharding cuts no block, which takes no communication, and otherwise on what
is gathered along the dimensions of the mesh that cut them. Everything else is done on the whole tensor, by every
process alike. What communicates has to be called by every process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement


def _many_processes() -> bool:
    # Asked first: without them nothing is sharded, and importing DTensor alone takes half a second.
    return dist.is_available() and dist.is_initialized()


def is_sharded(w: Any) -> TypeGuard[DTensor]:
    """Return whether ``w`` is a ``DTensor``, of which this process may hold only a shard."""
    if not _many_processes():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(w, DTensor)


def any_sharded(tensors: Iterable[Any]) -> bool:
    """Return whether one of the tensors is sharded."""
    return _many_processes() and any(map(is_sharded, tensors))


def whole(w: Any) -> Any:
    """All of ``w``, on every process; what is no ``DTensor`` is returned as it is. Differentiable.

    >>> whole(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return w.full_tensor() if is_sharded(w) else w


def local(w: Any) -> Any:
    """Return the part of ``w`` that this process holds: a plain tensor.

    >>> local(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return w.to_local() if is_sharded(w) else w


def total_over_shards(w: Any, part: Tensor) -> Tensor:
    """The sum over the shards of ``w`` of what each process computed from its own; a plain tensor on every process.

    >>> total_over_shards(torch.ones(3), torch.tensor(3))
    tensor(3)
    """
    return part if not is_sharded(w) else _pooled(w, part, w.placements)


def shared_like(w: Any, shard: Tensor) -> Tensor:
    """Return the tensor of which each process has given its shard, sharded as ``w`` is; no process waits.

    >>> shared_like(torch.ones(2), torch.tensor([True, False]))
    tensor([ True, False])
    """
    return _shared(w, shard, w.placements) if is_sharded(w) else shard


def _shared(w: DTensor, shard: Tensor, placements: tuple[Placement, ...]) -> DTensor:
    return type(w).from_local(shard, w.device_mesh, placements, shape=w.shape, stride=w.stride())


def _pooled(w: DTensor, part: Tensor, placements: tuple[Placement, ...]) -> Tensor:
    from torch.distributed.tensor import Partial

    parts = [placement if placement.is_replicate() else Partial() for placement in placements]
    return type(w).from_local(part, w.device_mesh, parts).full_tensor()


def _keeps(placement: Placement, dims: tuple[int, ...]) -> bool:
    # what is neither replicated nor a partial sum is a shard of some kind, and has a dimension
    return placement.is_replicate() or (not placement.is_partial() and placement.dim in dims)  # type: ignore[attr-defined]


def _uncut(penalty: Any, w: DTensor, lam: Any) -> tuple[Placement, ...]:
    """The placements of ``w``, but replicated wherever they cut blocks of ``penalty``."""
    from torch.distributed.tensor import Replicate

    # a tensor with a λ for each block is not cut up
    dims = () if isinstance(lam, Tensor) and lam.dim() else penalty.whole_along(w)
    return tuple(placement if _keeps(placement, dims) else Replicate() for placement in w.placements)


def _local(w: Any, placements: tuple[Placement, ...]) -> Any:
    return w.redistribute(placements=placements).to_local() if is_sharded(w) else w


def shardwise(prox: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``prox(self, w, lam, step)`` on shards that hold whole blocks, as ``self.whole_along(w)`` says; like ``w``."""

    @functools.wraps(prox)
    def sharded(self: Any, w: Tensor, lam: Any, step: Any) -> Tensor:
        if not is_sharded(w):
            return prox(self, w, lam, step)
        placements = _uncut(self, w, lam)
        shard = _local(w, placements)
        if shard.numel():  # a process may hold no row at all
            shard = prox(self, shard, whole(lam), _local(step, placements))
        return _shared(w, shard, placements).redistribute(placements=w.placements)

    return sharded


def shardwise_mask(alive: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``alive(self, mask)`` on shards that hold whole blocks, as :func:`shardwise` does it; like ``mask``."""

    @functools.wraps(alive)
    def sharded(self: Any, mask: Tensor) -> Tensor:
        if not is_sharded(mask):
            return alive(self, mask)
        placements = _uncut(self, mask, None)
        shard = _local(mask, placements)
        if shard.numel():
            shard = alive(self, shard)
        return _shared(mask, shard, placements).redistribute(placements=mask.placements)

    return sharded


def summed(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``value(self, w, lam)`` on shards with whole blocks, and the sum over them: a plain scalar on every process."""

    @functools.wraps(value)
    def sharded(self: Any, w: Tensor, lam: Any) -> Tensor:
        if not is_sharded(w):
            return value(self, w, lam)
        placements = _uncut(self, w, lam)
        shard = _local(w, placements)
        # the sum over an empty shard keeps this process in the graph, whose backward pass communicates
        precision = torch.promote_types(w.dtype, torch.float32)
        part = value(self, shard, whole(lam)) if shard.numel() else shard.sum(dtype=precision)
        return _pooled(w, part, placements)

    return sharded


def gathered(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method of tensors, on the whole of each."""

    @functools.wraps(method)
    def sharded(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        return method(self, *map(whole, args), **{name: whole(value) for name, value in kwargs.items()})

    return sharded


def reshard(model: nn.Module) -> None:
    """Let FSDP2 free what a forward pass without a backward one left gathered: the parameters are the shards again."""
    for module in filter(_is_fsdp, model.modules()):
        module.reshard()  # type: ignore[operator]


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of ``module``, before FSDP2 made a class of its own of it.

    >>> plain_class(nn.Linear(2, 1))
    <class 'torch.nn.modules.linear.Linear'>
    """
    if not _is_fsdp(module):
        return type(module)
    from torch.distributed.fsdp import FSDPModule

    plain = (cls for cls in type(module).__mro__ if not issubclass(cls, FSDPModule))
    return cast(type[nn.Module], next(plain))


def _is_fsdp(module: nn.Module) -> bool:
    if not _many_processes():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)
