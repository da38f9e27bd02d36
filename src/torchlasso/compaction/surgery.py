"""Cut a model's tensors, in place."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from torchlasso.compaction.removal import Removal
from torchlasso.graph.axes import Dim


def cut_(model: nn.Module, parameters: dict[str, list[Dim]], removal: Removal) -> list[tuple[Tensor, list[Dim]]]:
    """Make the parameters and buffers of a model smaller, each staying the object that it is, with its gradient.

    Args:
        model: is changed.
        parameters: the dimensions of its parameters and buffers, by name.
        removal: what goes.

    Returns:
        The tensors that are smaller now, and their dimensions.

    Raises:
        RuntimeError: something holds on to one of them; nothing is changed then.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    touching = {name: dims for name, dims in parameters.items() if any(map(removal.touches, dims))}
    changing = [name for name in parameters if name in touching or name in removal.shifts]
    for name in changing:
        if weakref.getweakrefcount(tensors[name]):
            raise RuntimeError(
                f"{name} is held by something else and cannot become smaller; of a wrapper such as "
                "DistributedDataParallel take the module and delete the wrapper first"
            )
    found = []
    for name in changing:
        old, dims = tensors[name], parameters[name]
        new = old.detach()
        if name in removal.shifts:  # in float64, so that a constant that is rounded is rounded once
            new = (new.double() + removal.shifts[name].to(new.device)).to(new.dtype)
        _become(old, removal.sliced(new, dims), old.grad if old.grad is None else removal.sliced(old.grad, dims))
        if name in touching:
            found.append((old, dims))
    return found


def _become(old: Tensor, value: Tensor, grad: Tensor | None) -> None:
    """Let a tensor have another value, of another shape, and stay the same object for whoever holds it."""
    value = value.clone(memory_format=_layout(old))
    new = nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
    new.grad = grad
    new.__dict__.update(old.__dict__)
    torch.utils.swap_tensors(old, new)  # type: ignore[no-untyped-call]


def _layout(tensor: Tensor) -> torch.memory_format:
    """How the elements of a tensor lie in memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous():
        return last
    return torch.contiguous_format
