"""Processes that torchrun starts to train one model: their shares of the work, and the values that they agree on.

Outside :func:`joined`, or in a process alone, every function does what it does for one process, without any cost.

A process that fails leaves the group, and the others fail where they next wait for it: nothing is said of errors from
one process to another. The first that fails is the one to say why (:func:`is_first_to_fail`).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
P = ParamSpec("P")
STRIDE = 2_654_435_769  # between the seeds of two processes: odd, as only 32 bits of a seed count on a CPU


@dataclass(frozen=True)
class _Processes:
    rank: int
    size: int
    store: Any = None


_ALONE = _Processes(0, 1)
_group = _ALONE


@contextmanager
def joined() -> Iterator[None]:
    """Join the group of processes, if torchrun started this one and others."""
    global _group
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    # Imported while a group is there, it would keep that group for good, as the default of its functions' arguments;
    # the group's threads would outlive it, and one that lets go of a tensor while Python ends aborts the process.
    importlib.import_module("torch.distributed.nn")
    store, rank, size = next(rendezvous("env://"))
    # gloo is for tensors on the CPU, which there are even if the model is on a GPU, such as a loss
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    _group = _Processes(rank, size, store)
    try:
        yield
    except Exception:
        is_first_to_fail()  # recorded now, so that the processes that wait for this one are not the first
        raise
    finally:
        _group = _ALONE
        dist.destroy_process_group()


def size() -> int:
    """Return the number of processes."""
    return _group.size


def is_first() -> bool:
    """Return whether this is the process that writes files and shows progress."""
    return _group.rank == 0


def is_first_to_fail() -> bool:
    """Return whether no process has failed before; to be asked once, by a process that has."""
    return _group.store is None or _group.store.add("torchlasso.failed", 1) == 1


def wait() -> None:
    """Wait until every process is here."""
    total(0.0)


def by_first(action: Callable[P, T]) -> Callable[P, T | None]:
    """Decorate a function that only the first process runs, while the others wait before it and until its end.

    In the others it returns None.
    """

    @functools.wraps(action)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T | None:
        wait()
        found = action(*args, **kwargs) if is_first() else None
        wait()
        return found

    return wrapped


def own_device(device: torch.device) -> torch.device:
    """Return the accelerator of this process: on each machine the first process has the first, and so on.

    Raises:
        ValueError: ``device`` is a certain one, or there are too few.
    """
    if size() == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise ValueError(f"every process has a device of its own: give {device.type!r} without a number; got {device}")
    index, there = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
    if index >= there:
        raise ValueError(f"every process needs a device of its own; there are {there} of {device.type!r}")
    torch.accelerator.set_device_index(index)
    return torch.device(device.type, index)


def own_randomness() -> None:
    """Seed this process differently from all others; the first keeps the seed that it has."""
    if not is_first():
        torch.manual_seed((torch.initial_seed() + _group.rank * STRIDE) % 2**63)


def own_rows(rows: Tensor) -> tuple[Tensor, float]:
    """Return the rows of this process, and their share of all rows: the weight of their mean in the mean over all.

    No process has a single row, which a batch norm cannot normalise, unless there are no more. Where there are too few
    rows for all processes, the last ones get all rows with a weight of 0.
    """
    n, busy = len(rows), max(1, min(size(), len(rows) // 2))
    if _group.rank >= busy:
        return rows, 0.0
    own = rows[n * _group.rank // busy : n * (_group.rank + 1) // busy]
    return own, len(own) / n


def total(value: float) -> float:
    """Return the sum of the processes' numbers."""
    if size() == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(number)
    return number.item()


def dealt(items: Iterable[T]) -> list[T]:
    """Return the items that fall to this process when they are dealt out in turn."""
    return list(items)[_group.rank :: size()]


def collected(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the tensors of all processes, on ``device``, in the order of the items that :func:`dealt` gave them."""
    if size() == 1:
        return list(tensors)
    hands: list[list[Tensor]] = [[] for _ in range(size())]
    dist.all_gather_object(hands, [tensor.cpu() for tensor in tensors])
    return [tensor.to(device) for tensor in chain(*zip_longest(*hands)) if tensor is not None]


@torch.no_grad()
def add_up_gradients_(parameters: Iterable[Tensor]) -> None:
    """Give each parameter the sum of its gradients in all processes, or none where no process has one.

    All go in one piece, so that they are summed in the same order in every step, also after a resume; the buckets of
    DistributedDataParallel, which it makes anew as it goes, do not keep to that.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if size() == 1 or not parameters:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    found = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    everything = torch.cat([found, *(grad.flatten() for grad in gradients)])
    dist.all_reduce(everything)
    found, *sums = torch.split(everything, [len(parameters), *(p.numel() for p in parameters)])
    for p, some, new in zip(parameters, found.tolist(), sums, strict=True):
        p.grad = new.view_as(p).to(p.dtype) if some else None


@torch.no_grad()
def take_from_first_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by the first process's."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
