"""The tensors of a model, and their ties."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchlasso._core.wrappers import plain_name, unwrapped
from torchlasso.distributed.sharding import any_sharded


def tensors_of(model: nn.Module, argument: str, *, without_values: bool = False) -> dict[str, Tensor]:
    """Return the tensors of ``model.state_dict()``, under their names in the plain model.

    Args:
        model: a model, which may be compiled or wrapped.
        argument: the name of the model in errors.
        without_values: whether to accept tensors on the meta device.

    Raises:
        TypeError: it is not a model, or it has an entry that is not a plain tensor; the message names it.
        ValueError: a tensor has no values, or only a part of them is here.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{argument} must be a torch.nn.Module; got {type(model).__name__}")
    state = {plain_name(name): w for name, w in unwrapped(model).state_dict().items()}
    for name, w in state.items():
        if not isinstance(w, Tensor):
            raise TypeError(f"{name!r} of {argument}.state_dict() is not a tensor, but a {type(w).__name__}")
        if is_lazy(w) or (w.is_meta and not without_values):
            raise ValueError(f"{name!r} of {argument} has no values yet")
        if w.layout != torch.strided or w.is_quantized:
            raise TypeError(
                f"{name!r} of {argument} is not a plain tensor: its layout is {w.layout}, its dtype {w.dtype}"
            )
    if any_sharded(state.values()):
        raise ValueError(f"{argument} is sharded over several processes; use torch.distributed.checkpoint")
    return state


def members_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model's modules under all their names, in the state or not."""
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {plain_name(name): w for name, w in every}


def tied(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names of each tensor with several names: the same memory, viewed in the same way.

    >>> w = torch.ones(2, 2)
    >>> tied({"a": w, "b": w, "c": w.clone(), "d": w.T})
    [['a', 'b']]
    """
    names: dict[object, list[str]] = {}
    for name, w in tensors.items():
        if w.numel():
            memory = w.untyped_storage()._cdata if w.is_meta else w.data_ptr()
            names.setdefault((memory, w.device, w.dtype, w.shape, w.stride()), []).append(name)
    return [group for group in names.values() if len(group) > 1]
