"""Run a model in more precision than its own, so that rounding cannot be taken for a difference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from torchlasso._core.copying import copied
from torchlasso._core.kept import kept, put_

CASTS = {"half": torch.float16, "bfloat16": torch.bfloat16, "float": torch.float32}


class Shared(nn.Parameter):
    """A parameter of a copy, in the memory of another model: what is written into it must not reach that."""


@dataclass(frozen=True)
class Precision:
    """A floating-point type, and how exact numbers in it are.

    Attributes:
        dtype: what is less exact becomes this.
        tolerance: how far the outputs of two models may be apart, relative to the largest: rounding, in many layers.
        rounding: how far numbers may be apart that are the same but for the order of a sum, relative to the largest.
    """

    dtype: torch.dtype
    tolerance: float
    rounding: float

    def wide(self, value: Any) -> Any:
        """Return the type for one that is less exact, and anything else as it is."""
        if not isinstance(value, torch.dtype) or not (value.is_floating_point or value.is_complex):
            return value
        wider = self.dtype.to_complex() if value.is_complex else self.dtype
        return wider if value.itemsize < wider.itemsize else value

    def tensor(self, value: Any) -> Any:
        """Return a copy of a tensor on the CPU in this precision, and anything else as it is."""
        return value.to("cpu", self.wide(value.dtype), copy=True) if isinstance(value, Tensor) else value

    def widened(self, value: Any) -> Any:
        """Return a tensor on the CPU in this precision, itself if it is so already; anything else as it is."""
        return value.to("cpu", self.wide(value.dtype)) if isinstance(value, Tensor) else value

    def tensors(self, value: Any) -> Any:
        """Return copies of the tensors in a nest, on the CPU and in this precision."""
        return tree_map(self.tensor, value)

    def copied(self, model: nn.Module) -> nn.Module:
        """Copy a model, to be run in :meth:`running`.

        The copy is on the CPU: not every device has float64, and what is asked of it is one run or two. Its matrices
        are less exact ones in the memory of the model; each is widened in the call that reads it, and copied before the
        first that writes it.
        """
        return self._with(model, self._shared)

    def unwritten(self, model: nn.Module) -> nn.Module:
        """Copy a model for ``torch.export``, which reads no parameters: theirs is memory that is never touched."""

        def empty(p: Tensor) -> nn.Parameter:
            return nn.Parameter(torch.empty_like(p, dtype=self.wide(p.dtype), device="cpu"), p.requires_grad)

        return self._with(model, empty)

    def _shared(self, p: Tensor) -> nn.Parameter:
        if p.dim() > 1 and self.wide(p.dtype) != p.dtype:
            return Shared(p.detach().cpu(), p.requires_grad)
        return nn.Parameter(self.tensor(p.detach()), p.requires_grad)

    def _with(self, model: nn.Module, parameter: Callable[[Tensor], nn.Parameter]) -> nn.Module:
        """Copy a model in this precision, its buffers and the tensors that are attributes of modules, too."""
        memo: dict[int, Any] = {id(buffer): self.tensor(buffer.detach()) for buffer in model.buffers()}
        memo |= {id(p): parameter(p) for p in model.parameters()}
        model = copied(model, memo)
        registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        seen = set[int]()
        for module in model.modules():
            for keys, value in kept(module, seen):
                if isinstance(value, Tensor) and id(value) not in registered:
                    put_(module, keys, self.tensor(value))
        return model

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make this the type of all tensors that are made, also where the code names one that is less exact."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.wide(before))
        try:
            with _Widened(self):
                yield
        finally:
            torch.set_default_dtype(before)


class _Widened(TorchFunctionMode):
    """Types and parameters in calls are replaced by ones that are more exact."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CASTS and len(args) == 1 and isinstance(args[0], Tensor):
            return args[0].to(self.precision.wide(CASTS[name]))
        if name == "__deepcopy__":  # an argument holds all that was copied so far
            return func(*args, **kwargs or {})
        if func is nn.functional.embedding and self._reads_rows(args, kwargs or {}):
            return self.precision.widened(func(*args, **kwargs or {}))  # these rows, and not the whole table
        if _writes(func, name):
            tree_map(self._own_, args)
        elif name == "__get__":  # a property, such as the type
            return self._wide(func(*args))
        return func(*self._wide(args), **self._wide(kwargs or {}))

    def _wide(self, value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(map(self._wide, value))
        if type(value) is dict:
            return {key: self._wide(part) for key, part in value.items()}
        return self.precision.widened(value) if self._is_narrow(value) else self.precision.wide(value)

    def _reads_rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return True for an embedding that writes none of its rows, as it does where they have a largest norm."""
        largest = (*args[3:4], kwargs.get("max_norm"))
        return len(args) > 1 and self._is_narrow(args[1]) and all(norm is None for norm in largest)

    def _own_(self, value: Any) -> None:
        """Give a parameter memory of its own, before something is written into it."""
        if self._is_narrow(value):
            value.data = self.precision.widened(value.data)

    def _is_narrow(self, value: Any) -> bool:
        return isinstance(value, Shared) and self.precision.wide(value.dtype) != value.dtype


def _writes(func: Any, name: str) -> bool:
    """Return whether a call may write into its arguments, or give away their memory to be written into."""
    if name == "__get__":
        return bool(func == vars(torch._C.TensorBase)["data"].__get__)
    return name in ("__setitem__", "__set__", "detach") or (name.endswith("_") and not name.endswith("__"))


DOUBLE = Precision(torch.float64, tolerance=1e-9, rounding=1e-11)
SINGLE = Precision(torch.float32, tolerance=1e-4, rounding=1e-5)  # for operators that have no float64
