"""Sharding: computations on plain tensors, done on tensors that several processes share.

FSDP2 and tensor parallelism keep a weight as a ``DTensor``, of which each process holds a shard. A computation that
treats every block by itself (the prox, the sum of a penalty's values) is done on shards that hold whole blocks, each
process its own. Where the sharding cuts no block, these are the shards as they are, and nothing is communicated;
otherwise the shards are gathered along the dimensions of the mesh that cut blocks. Everything else is done on the whole
tensor, by every process alike. Every process has to call the functions that communicate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
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
    """Return all of ``w``, on every process; a plain tensor is returned as it is. Differentiable.

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


def totals_over_shards(tensors: Sequence[Any], counts: Sequence[int]) -> list[int]:
    """Return the sum over the shards of each tensor of the count that each process has for its own.

    Tensors that are sharded alike are one exchange, since its time hardly depends on its length.

    >>> totals_over_shards([torch.ones(3), torch.ones(2)], [3, 2])
    [3, 2]
    """
    alike: dict[Any, list[int]] = {}
    for i, w in enumerate(tensors):
        if is_sharded(w):
            alike.setdefault((w.device_mesh, w.placements, w.device), []).append(i)
    totals = list(counts)
    for members in alike.values():
        w = tensors[members[0]]
        parts = torch.tensor([counts[i] for i in members], device=w.device)
        for i, total in zip(members, _pooled(w, parts, w.placements).tolist(), strict=True):
            totals[i] = total
    return totals


def shared_like(w: Any, shard: Tensor) -> Tensor:
    """Return the tensor of these shards, one from each process, sharded as ``w`` is; no process waits.

    >>> shared_like(torch.ones(2), torch.tensor([True, False]))
    tensor([ True, False])
    """
    return _shared(w, shard, w.placements) if is_sharded(w) else shard


def part_like(w: Any, value: Tensor) -> Tensor:
    """Return the part for this process of a whole value like ``w``; that part itself is returned as it is.

    >>> part_like(torch.ones(2), torch.tensor([True, False]))
    tensor([ True, False])
    """
    if not is_sharded(w) or value.shape != w.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # src_data_rank=None: every process has the whole value, so nothing is sent
    return distribute_tensor(value.to(w.device), w.device_mesh, w.placements, src_data_rank=None).to_local()


def _shared(w: DTensor, shard: Tensor, placements: tuple[Placement, ...]) -> DTensor:
    return type(w).from_local(shard, w.device_mesh, placements, shape=w.shape, stride=w.stride())


def _pooled(w: DTensor, part: Tensor, placements: tuple[Placement, ...]) -> Tensor:
    from torch.distributed.tensor import Partial

    parts = [placement if placement.is_replicate() else Partial() for placement in placements]
    return type(w).from_local(part, w.device_mesh, parts).full_tensor()


def _keeps(placement: Placement, dims: tuple[int, ...]) -> bool:
    # a placement that is neither replicated nor a partial sum is a shard of some kind, and has a dimension
    return placement.is_replicate() or (not placement.is_partial() and placement.dim in dims)  # type: ignore[attr-defined]


def _uncut(penalty: Any, w: DTensor, lam: Any) -> tuple[Placement, ...]:
    """Return the placements of ``w``, but replicated wherever they cut blocks of ``penalty``."""
    from torch.distributed.tensor import Replicate

    # a tensor with a λ for each block is not cut up
    dims = () if isinstance(lam, Tensor) and lam.dim() else penalty.whole_along(w)
    return tuple(placement if _keeps(placement, dims) else Replicate() for placement in w.placements)


def _local(w: Any, placements: tuple[Placement, ...]) -> Any:
    return _placed(w, placements).to_local() if is_sharded(w) else w


def _placed(w: DTensor, placements: tuple[Placement, ...]) -> DTensor:
    """Return ``w`` with these placements; asking torch for those that it has takes time too."""
    return w if placements == w.placements else w.redistribute(placements=placements)


def shardwise(prox: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Do ``prox(self, w, lam, step)`` on shards that hold whole blocks (``whole_along``); sharded like ``w``."""

    @functools.wraps(prox)
    def sharded(self: Any, w: Tensor, lam: Any, step: Any) -> Tensor:
        if not is_sharded(w):
            return prox(self, w, lam, step)
        placements = _uncut(self, w, lam)
        shard = _local(w, placements)
        if shard.numel():  # a process may hold no row at all
            shard = prox(self, shard, whole(lam), _local(step, placements))
        return _placed(_shared(w, shard, placements), w.placements)

    return sharded


def shardwise_mask(alive: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Do ``alive(self, mask)`` on shards that hold whole blocks, as :func:`shardwise` does; sharded like ``mask``."""

    @functools.wraps(alive)
    def sharded(self: Any, mask: Tensor) -> Tensor:
        if not is_sharded(mask):
            return alive(self, mask)
        placements = _uncut(self, mask, None)
        shard = _local(mask, placements)
        if shard.numel():
            shard = alive(self, shard)
        return _placed(_shared(mask, shard, placements), mask.placements)

    return sharded


def summed(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Add up ``value(self, w, lam)`` over shards with whole blocks: a plain scalar on every process."""

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
    """Call a method of tensors with the whole of each."""

    @functools.wraps(method)
    def sharded(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        return method(self, *map(whole, args), **{name: whole(value) for name, value in kwargs.items()})

    return sharded


def reshard(model: nn.Module) -> None:
    """Shard FSDP2 parameters again that a forward pass without a backward pass left gathered."""
    for module in filter(_is_fsdp, model.modules()):
        module.reshard()  # type: ignore[operator]


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of ``module`` without the class that FSDP2 derives from it.

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
