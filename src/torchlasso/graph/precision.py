"""Run a model in more precision than its own, so that rounding cannot be taken for a difference."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from torchlasso.graph.kept import kept, put_

CASTS = {"half": torch.float16, "bfloat16": torch.bfloat16, "float": torch.float32}


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

    def tensors(self, value: Any) -> Any:
        """Return copies of the tensors in a nest, on the CPU and in this precision."""
        return tree_map(self.tensor, value)

    def copied(self, model: nn.Module) -> nn.Module:
        """Copy a model, with the tensors that are no buffers but attributes of its modules.

        The copy is on the CPU: not every device has float64, and what is asked of it is one run or two.
        """
        model = copy.deepcopy(model)._apply(lambda x: x.to("cpu", self.wide(x.dtype)))  # type: ignore[no-untyped-call]
        registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        for module in model.modules():
            for keys, value in kept(module):
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
    """Types in calls are replaced by one that is more exact."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cast = CASTS.get(getattr(func, "__name__", ""))
        if cast is not None and len(args) == 1 and isinstance(args[0], Tensor):
            return args[0].to(self.precision.wide(cast))
        args, kwargs = tree_map(self.precision.wide, (args, kwargs or {}))
        return func(*args, **kwargs)


DOUBLE = Precision(torch.float64, tolerance=1e-9, rounding=1e-11)
SINGLE = Precision(torch.float32, tolerance=1e-4, rounding=1e-5)  # for operators that have no float64
