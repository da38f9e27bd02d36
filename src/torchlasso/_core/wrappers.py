"""A model and the names of its tensors as they are without what wraps them for training or for speed."""

from __future__ import annotations

from torch import nn

COMPILED = "_orig_mod"  # where torch.compile keeps the module that it wraps, and so a part of its names
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``.

    >>> layer = nn.Linear(2, 1)
    >>> unwrapped(nn.DataParallel(layer)) is layer
    True
    """
    while True:
        if isinstance(model, PARALLEL):
            model = model.module
        elif COMPILED in model._modules:
            model = model.get_submodule(COMPILED)
        else:
            return model


def plain(name: str) -> str:
    """Return the name of a module or tensor as it is where nothing is compiled.

    >>> plain("layers.0._orig_mod.weight")
    'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != COMPILED)
