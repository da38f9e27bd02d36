"""The ways to run a whole model: each function makes a module with the model's call, or returns None if it has no use.

A new way is a function in this file with ``@backend(name)``; it is tried, checked and timed like the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torchlasso._core.registry import Registry
from torchlasso._core.running import ExampleInputs, quietly, run_once
from torchlasso.export.onnx_content import unseal_onnx
from torchlasso.export.onnx_files import onnx_bytes
from torchlasso.inference.folding import fold_batch_norms
from torchlasso.inference.runtimes import in_8_bits, run_by_onnxruntime, run_by_openvino


@dataclass(frozen=True)
class ModelToRun:
    """A model to run in several ways; what more than one of them needs is made once.

    Attributes:
        model: in evaluation mode.
        example_inputs: of the model.
        calibration: inputs on which 8-bit numbers get their ranges.
        longest: the largest size of dimension 1 of the inputs, if it is free.
        file: the model as an ONNX file, if there is one already.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    calibration: ExampleInputs
    longest: int | None = None
    file: Path | None = None

    @cached_property
    def outputs(self) -> Any:
        """The outputs of the model on the example."""
        return run_once(self.model, self.example_inputs)

    @cached_property
    def onnx(self) -> bytes | None:
        """The content of an ONNX file of the model; None for a model on another device than the CPU."""
        if any(p.device.type != "cpu" for p in self.model.parameters()):
            return None
        if self.file is not None and self.file.exists():
            return unseal_onnx(self.file.read_bytes())[1]
        return unseal_onnx(onnx_bytes(self.model, self.example_inputs, longest=self.longest))[1]

    @cached_property
    def folded(self) -> tuple[nn.Module, int]:
        """The model with batch norms folded into the layers before them, and their number."""
        return fold_batch_norms(self.model, self.example_inputs)


@dataclass(frozen=True)
class Backend:
    """A way to run a whole model.

    Attributes:
        build: makes the module; it may raise any exception if it cannot.
        exact: whether the outputs are the same up to the rounding of sums.
    """

    build: Callable[[ModelToRun], nn.Module | None]
    exact: bool = True


_BACKENDS: Registry[str, Backend] = Registry("backend")


def backend(name: str, exact: bool = True) -> Callable[[Callable[[ModelToRun], nn.Module | None]], Any]:
    """Register a function as a way to run a whole model, reported as ``name``."""

    def entered(function: Callable[[ModelToRun], nn.Module | None]) -> Callable[[ModelToRun], nn.Module | None]:
        _BACKENDS.enter(name, Backend(function, exact))
        return function

    return entered


def backends() -> Mapping[str, Backend]:
    """Return all ways to run a whole model.

    >>> list(backends())
    ['folded', 'channels-last', 'inductor', 'onnxruntime', 'openvino', 'bfloat16', 'int8']
    """
    return _BACKENDS


@backend("folded")
def folded(given: ModelToRun) -> nn.Module | None:
    """Fold batch norms into the layers before them."""
    model, count = given.folded
    return model if count else None


@backend("channels-last")
def channels_last(given: ModelToRun) -> nn.Module | None:
    """Keep the channels of a pixel beside each other in memory, after folding batch norms."""
    if not any(isinstance(module, nn.Conv2d) for module in given.model.modules()):
        return None
    model = copy.deepcopy(given.folded[0])
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _Converting(model, _channels_last, _contiguous)


@backend("inductor")
def inductor(given: ModelToRun) -> nn.Module:
    """Compile the model with torch.compile, with its weights as constants; torch caches the result on disk."""
    return _Compiled(copy.deepcopy(given.model))


@backend("onnxruntime")
def by_onnxruntime(given: ModelToRun) -> nn.Module | None:
    """Run the model as ONNX, in onnxruntime."""
    return None if given.onnx is None else run_by_onnxruntime(given.onnx, given.outputs)


@backend("openvino")
def by_openvino(given: ModelToRun) -> nn.Module | None:
    """Run the model as ONNX, in OpenVINO."""
    return None if given.onnx is None else run_by_openvino(given.onnx, given.outputs)


@backend("bfloat16", exact=False)
def in_bfloat16(given: ModelToRun) -> nn.Module:
    """Compute in bfloat16, and return the outputs in the precision of the original."""
    dtype = next((p.dtype for p in given.model.parameters() if p.is_floating_point()), torch.float32)
    narrow = partial(_converted, torch.bfloat16)
    return _Converting(copy.deepcopy(given.model).to(torch.bfloat16), narrow, partial(_converted, dtype))


@backend("int8", exact=False)
def in_int8(given: ModelToRun) -> nn.Module | None:
    """Compute in 8-bit whole numbers, in onnxruntime."""
    return None if given.onnx is None else run_by_onnxruntime(in_8_bits(given.onnx, given.calibration), given.outputs)


class _Converting(nn.Module):
    """A model whose inputs and outputs are converted, tensor by tensor."""

    def __init__(self, model: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._before, self._after = model, before, after

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _mapped(self._before, (args, kwargs))
        return _mapped(self._after, self.model(*args, **kwargs))


class _Compiled(nn.Module):
    """A compiled model; it is compiled when it first runs, and again for another batch size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._has_run = model, False
        with quietly():  # importing the compiler warns, and so does its first run
            self._run = torch.compile(model, options={"freezing": True})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), nullcontext() if self._has_run else quietly():  # with gradients, weights are no constants
            outputs = self._run(*args, **kwargs)
        self._has_run = True
        return outputs


def _mapped(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def _converted(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x
