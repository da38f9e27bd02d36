"""Cut a model's tensors, in place."""

from __future__ import annotations

import weakref

from torch import Tensor, nn

from torchlasso.compaction.removal import Removal
from torchlasso.compaction.resizing import become_
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
        become_(old, removal.sliced(new, dims), old.grad if old.grad is None else removal.sliced(old.grad, dims))
        if name in touching:
            found.append((old, dims))
    return found
