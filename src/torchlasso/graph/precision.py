"""Run a model in a higher precision than its own, so that rounding does not count as a difference."""

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
    """A parameter of a copy that shares the memory of the original; it is copied before anything writes into it."""


@dataclass(frozen=True)
class Precision:
    """A floating-point type, with its tolerances.

    Attributes:
        dtype: the type; lower precisions are converted to it.
        tolerance: the largest difference of the outputs of two models due to rounding in many layers, relative to the
            largest element.
        rounding: the largest difference of two sums of the same numbers in another order, relative to the largest.
    """

    dtype: torch.dtype
    tolerance: float
    rounding: float

    def wide(self, value: Any) -> Any:
        """Return this type for a floating-point type of lower precision; return any other value unchanged."""
        if not isinstance(value, torch.dtype) or not (value.is_floating_point or value.is_complex):
            return value
        wider = self.dtype.to_complex() if value.is_complex else self.dtype
        return wider if value.itemsize < wider.itemsize else value

    def tensor(self, value: Any) -> Any:
        """Return a copy of a tensor on the CPU in this precision; return any other value unchanged."""
        return value.to("cpu", self.wide(value.dtype), copy=True) if isinstance(value, Tensor) else value

    def widened(self, value: Any) -> Any:
        """Return a tensor on the CPU in this precision, without a copy if possible; return other values unchanged."""
        return value.to("cpu", self.wide(value.dtype)) if isinstance(value, Tensor) else value

    def tensors(self, value: Any) -> Any:
        """Return copies of the tensors in a nest, on the CPU and in this precision."""
        return tree_map(self.tensor, value)

    def copied(self, model: nn.Module) -> nn.Module:
        """Copy a model, to be run in :meth:`running`.

        The copy is on the CPU, since not every device has float64, and it runs only once or twice. To save memory, its
        matrices share the memory of the model in their own precision: each is converted in the call that reads it, and
        copied before the first call that writes into it.
        """
        return self._with(model, self._shared)

    def unwritten(self, model: nn.Module) -> nn.Module:
        """Copy a model for ``torch.export``, which reads no values of parameters: their memory stays untouched."""

        def empty(p: Tensor) -> nn.Parameter:
            return nn.Parameter(torch.empty_like(p, dtype=self.wide(p.dtype), device="cpu"), p.requires_grad)

        return self._with(model, empty)

    def _shared(self, p: Tensor) -> nn.Parameter:
        if p.dim() > 1 and self.wide(p.dtype) != p.dtype:
            return Shared(p.detach().cpu(), p.requires_grad)
        return nn.Parameter(self.tensor(p.detach()), p.requires_grad)

    def _with(self, model: nn.Module, parameter: Callable[[Tensor], nn.Parameter]) -> nn.Module:
        """Copy a model in this precision, including its buffers and tensors in plain attributes of modules."""
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
        """Create all new tensors in this type, even if the code names a type of lower precision."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.wide(before))
        try:
            with _Widened(self):
                yield
        finally:
            torch.set_default_dtype(before)


class _Widened(TorchFunctionMode):
    """A mode that replaces types and parameters in calls by ones of higher precision."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CASTS and len(args) == 1 and isinstance(args[0], Tensor):
            return args[0].to(self.precision.wide(CASTS[name]))
        if name == "__deepcopy__":  # its memo argument holds everything copied so far
            return func(*args, **kwargs or {})
        if func is nn.functional.embedding and self._reads_rows(args, kwargs or {}):
            return self.precision.widened(func(*args, **kwargs or {}))  # converts these rows, not the whole table
        if _writes(func, name):
            tree_map(self._own_, args)
        elif name == "__get__":  # a property, such as the type or the transpose
            value = func(*args)
            return self.precision.widened(value) if isinstance(value, Tensor) else self._wide(value)
        return func(*self._wide(args), **self._wide(kwargs or {}))

    def _wide(self, value: Any) -> Any:
        kind = type(value)
        if kind is tuple or kind is list:
            return kind(map(self._wide, value))
        if kind is dict:
            return {key: self._wide(part) for key, part in value.items()}
        if kind is torch.dtype:
            return self.precision.wide(value)
        return self.precision.widened(value) if kind is Shared else value

    def _reads_rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return True for an embedding that only reads its rows; with ``max_norm``, it writes into them."""
        largest = (*args[3:4], kwargs.get("max_norm"))
        return len(args) > 1 and self._is_narrow(args[1]) and all(norm is None for norm in largest)

    def _own_(self, value: Any) -> None:
        """Give a parameter its own memory, before a call writes into it."""
        if self._is_narrow(value):
            value.data = self.precision.widened(value.data)

    def _is_narrow(self, value: Any) -> bool:
        return type(value) is Shared and self.precision.wide(value.dtype) != value.dtype


def _writes(func: Any, name: str) -> bool:
    """Return whether a call may write into its arguments, or return their memory to code that may."""
    if name == "__get__":
        return bool(func == vars(torch._C.TensorBase)["data"].__get__)
    return name in ("__setitem__", "__set__", "detach") or (name.endswith("_") and not name.endswith("__"))


DOUBLE = Precision(torch.float64, tolerance=1e-9, rounding=1e-11)
SINGLE = Precision(torch.float32, tolerance=1e-4, rounding=1e-5)  # for models that cannot run in float64
