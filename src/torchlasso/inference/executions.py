"""The ways to run a layer: each function makes a module with the layer's outputs, or returns None if it does not apply.

A new way is a function in this file with ``@execution(name)``; it is tried, checked and timed like the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from torchlasso._core.registry import Registry
from torchlasso.inference.channels import LiveChannels
from torchlasso.inference.compiled import FUNCTIONS, library
from torchlasso.inference.convolution import SparseConvolution
from torchlasso.inference.layers import Layer
from torchlasso.inference.linear import FEW, MANY, SparseLinear
from torchlasso.inference.matrix import blocks_of
from torchlasso.inference.semistructured import SemiStructuredLinear, fits

Execution = Callable[[Layer], nn.Module | None]

DENSE = "dense"
WORTH = 0.6  # the share of zeros from which on single weights are tried
FULL = 0.8  # the least share of nonzero weights within the kept blocks

_EXECUTIONS: Registry[str, Execution] = Registry("way to run a layer")


def execution(name: str) -> Callable[[Execution], Execution]:
    """Register a function as a way to run a layer, reported as ``name``."""

    def entered(function: Execution) -> Execution:
        _EXECUTIONS.enter(name, function)
        return function

    return entered


def executions() -> Mapping[str, Execution]:
    """Return all ways to run a layer, except the dense one.

    >>> list(executions())
    ['channels', 'csr', 'compiled', 'blocks-4', 'blocks-8', 'blocks-16', 'blocks-32', '2:4']
    """
    return _EXECUTIONS


@execution("channels")
def channels(layer: Layer) -> nn.Module | None:
    """Make a dense layer of the nonzero rows and columns (filters and input channels)."""
    there = layer.weight != 0
    outputs, inputs = (there.transpose(0, dim).flatten(1).any(dim=1) for dim in (0, 1))
    if outputs.all() and inputs.all():
        return None
    if not outputs.any():  # torch has no layers without channels
        outputs[0] = inputs[0] = True
    rows, columns = (None if mask.all() else mask.nonzero()[:, 0] for mask in (outputs, inputs))
    w = layer.weight[outputs][:, inputs]
    bias = layer.weight.new_zeros(len(outputs)) if layer.bias is None else layer.bias
    inner = _layer_like(layer, w, None if layer.bias is None else layer.bias[outputs])
    return LiveChannels(inner, 1 - w.dim(), columns, rows, bias)


def _layer_like(layer: Layer, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Make a layer of the same kind with fewer channels."""
    made: nn.Linear | nn.Conv2d
    if layer.convolves:
        made = copy.deepcopy(cast(nn.Conv2d, layer.module))
        made.out_channels, made.in_channels = weight.shape[:2]
    else:
        made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return made


@execution("csr")
def csr(layer: Layer) -> nn.Module | None:
    """Multiply by the nonzero weights in compressed rows, with MKL."""
    return _by_weights(layer, compiled=False) if layer.sparsity >= WORTH else None


@execution("compiled")
def compiled(layer: Layer) -> nn.Module | None:
    """Multiply by the nonzero weights in compiled code; in linear layers for one or two rows, and for many.

    Raises:
        RuntimeError: there is no working compiler.
    """
    if layer.sparsity < WORTH or layer.weight.device.type != "cpu" or layer.weight.dtype not in FUNCTIONS:
        return None
    between = all(FEW * x.shape[-1] < x.numel() < MANY * x.shape[-1] for x in layer.visits)
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not layer.convolves and (between or not mkl):  # those are left to MKL
        return None
    if library() is None:
        raise RuntimeError("nothing could be compiled")
    return _by_weights(layer, compiled=True)


def _by_weights(layer: Layer, compiled: bool) -> nn.Module:
    if layer.convolves:
        return SparseConvolution(cast(nn.Conv2d, layer.module), compiled)
    return SparseLinear(layer.weight, layer.bias, compiled=compiled)


def by_blocks(layer: Layer, size: int) -> nn.Module | None:
    """Multiply by the nonzero square blocks of a matrix, if these blocks have few zeros."""
    if layer.sparsity < WORTH or layer.convolves or any(n % size for n in layer.weight.shape):
        return None
    there = (blocks_of(layer.weight, size) != 0).any(dim=-1).any(dim=-1)
    if (1 - layer.sparsity) * layer.weight.numel() < FULL * int(there.sum()) * size**2:
        return None
    return SparseLinear(layer.weight, layer.bias, block=size)


for _size in (4, 8, 16, 32):
    execution(f"blocks-{_size}")(partial(by_blocks, size=_size))


@execution("2:4")
def two_of_four(layer: Layer) -> nn.Module | None:
    """Multiply with 2:4 sparsity, on GPUs that support it."""
    if layer.convolves or not layer.weight.is_cuda or not fits(layer.weight):
        return None
    return SemiStructuredLinear(layer.weight, layer.bias)
