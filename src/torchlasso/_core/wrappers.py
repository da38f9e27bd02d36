"""Remove wrappers for training or speed from a model, from the names of its tensors, and from an optimizer."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.optim import Optimizer

from torchlasso._core.copying import without_graph

COMPILED = "_orig_mod"  # the attribute of torch.compile for the wrapped module, and so a part of its names
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


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, also if only parts of a model are compiled.

    The model is not changed: if parts are compiled, the result is a copy that shares its parameters and buffers.
    """
    while COMPILED in model._modules:
        model = model.get_submodule(COMPILED)
    compiled = [module for module in model.modules() if COMPILED in module._modules]
    if not compiled:
        return model
    memo = without_graph(model) | {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in reversed(compiled):  # the inner ones first
        memo[id(module)] = copy.deepcopy(module.get_submodule(COMPILED), memo)
    return copy.deepcopy(model, memo)


def unwrapped_optimizer(optimizer: Any) -> Any:
    """Return the optimizer inside the wrappers of Accelerate and Lightning, which have it as ``optimizer``.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.ones(1)], lr=0.1)
    >>> unwrapped_optimizer(sgd) is sgd
    True
    """
    inner = getattr(optimizer, "optimizer", None)
    while isinstance(inner, Optimizer):
        optimizer, inner = inner, getattr(inner, "optimizer", None)
    return optimizer


def plain_name(name: str) -> str:
    """Return the name of a module or tensor without the parts added by ``torch.compile``.

    >>> plain_name("layers.0._orig_mod.weight")
    'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != COMPILED)
