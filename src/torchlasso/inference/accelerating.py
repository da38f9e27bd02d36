"""Run each layer of a model in the fastest way for its zeros, on this machine."""

from __future__ import annotations

import copy
import math
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torchlasso._core.arguments import check_inputs, check_model
from torchlasso._core.copying import without_graph
from torchlasso._core.running import ExampleInputs
from torchlasso._core.text import first_line
from torchlasso.compaction import compacted
from torchlasso.distributed.sharding import any_sharded
from torchlasso.inference.choosing import ChosenExecution, choose_execution
from torchlasso.inference.layers import find_layers, record
from torchlasso.inference.record import AccelerationReport, LayerAcceleration
from torchlasso.inference.whole import quickest, working


@overload
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: Literal[False] = False,
) -> nn.Module: ...
@overload
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: Literal[True],
) -> tuple[nn.Module, AccelerationReport]: ...
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: bool = False,
) -> nn.Module | tuple[nn.Module, AccelerationReport]:
    """Make a model for inference with the same outputs, in which each layer runs in the fastest way on this machine.

    Linear layers and convolutions with zeros are timed in several ways, and ways with different outputs are left out:
    unchanged (``dense``); without zero rows and columns, or zero filters and input channels (``channels``); by single
    weights, with MKL (``csr``) or in C++ if there is a compiler (``compiled``); linear layers also by square blocks
    (``blocks-4`` to ``blocks-32``) and, on GPUs that support it, with 2:4 sparsity (``2:4``). The choice is for this
    machine, torch's current number of threads and the batch size of the example; the outputs are right for all sizes.

    Args:
        model: any module; it is not changed.
        example_inputs: inputs of the model: a tensor, a tuple of arguments or a dict of keyword arguments.
        seconds: the approximate time for timing, half of it for the layers and half for the whole model. Each way is
            timed at least three times, which may take longer; compaction, compilation and checks come on top.
        compact_first: whether to remove units without effect first, as :func:`torchlasso.compact` does, if the model
            can be exported.
        return_report: whether to return the choices and timings as well.

    Returns:
        A copy of the model in evaluation mode, with plain modules in the place of layers and without gradients; it
        cannot be trained. With ``return_report``, also the report. Each new module was checked against its layer up to
        the rounding of a sum, and the whole model against the original, in float64. If the whole model does not gain at
        least 3 %, fewer layers are replaced, or none.

        A layer stays unchanged, and the report says why, if the model does not call it, as with the projections of
        ``nn.MultiheadAttention``; if the model needs its weight, as the fast path of ``nn.TransformerEncoderLayer``
        does unless ``torch.backends.mha.set_fastpath_enabled(False)`` was called; or if it is parametrised, masked or
        grouped, has hooks, or has a custom forward pass. Two differences remain: if an input is infinite or NaN, a zero
        weight makes a dense layer return NaN, but not a sparse one; and sparse layers do not run under
        ``torch.autocast``.

    Raises:
        ValueError: the model cannot be copied, does not run on the inputs, has weights that are not finite or is
            sharded, or ``seconds`` is not above 0.

    Examples:
        >>> net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))
        >>> _ = nn.init.zeros_(net[0].weight[64:]), nn.init.zeros_(net[0].bias[64:])
        >>> x = torch.randn(1, 64)
        >>> fast = accelerate(net, x, seconds=0.1)
        >>> fast[0], torch.allclose(fast(x), net(x), atol=1e-5)
        (Linear(in_features=64, out_features=64, bias=True), True)
    """
    check_model("accelerate: model", model)
    check_inputs("accelerate: example_inputs", example_inputs)
    if isinstance(seconds, bool) or not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise ValueError(f"seconds must be a finite number above 0; got {seconds!r}")
    if any_sharded(model.parameters()):
        raise ValueError("model must not be sharded: accelerate needs whole parameters")
    # a model may write to its inputs
    inputs = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, example_inputs)
    original = _copied(model).eval()
    small, compaction = (
        _compacted(original, inputs) if compact_first else (None, "Not compacted: compact_first is False.")
    )
    base = _copied(original) if small is None else small
    layers = find_layers(base)
    record(base, layers, inputs)
    open_to = sum(not layer.why for layer in layers)
    choices = [choose_execution(layer, seconds / 2 / max(1, open_to)) for layer in layers]
    choices = working(original, base, choices, inputs)
    found = quickest(original, base, choices, inputs, seconds / 2, smaller=small is not None)
    if small is not None and found.model is original:
        compaction += " The whole model is not faster with it, so no unit was removed."
    report = AccelerationReport(tuple(map(_reported, found.choices)), compaction, found.before, found.after)
    fast = found.model.requires_grad_(False)
    return (fast, report) if return_report else fast


@torch.no_grad()
def _copied(model: nn.Module) -> nn.Module:
    """Copy a model; its parameters are leaves, even if a scripted module would make them anew."""
    try:
        return copy.deepcopy(model, without_graph(model))
    except Exception as error:  # any exception: modules may define their own copying
        raise ValueError(f"model cannot be copied: {first_line(error)}") from error


def _compacted(model: nn.Module, inputs: ExampleInputs) -> tuple[nn.Module | None, str]:
    """Compact a model; return it if it became smaller, and a sentence about the outcome."""
    try:
        small, report, _ = compacted(model, inputs)
    except (RuntimeError, ValueError) as error:  # the model cannot be exported
        return None, f"Not compacted: {error}"
    return (small if report.removed else None), f"Compaction: {report.verdict}"


def _reported(choice: ChosenExecution) -> LayerAcceleration:
    layer = choice.layer
    return LayerAcceleration(
        layer.name,
        type(layer.module).__name__,
        tuple(layer.weight.shape),
        layer.sparsity,
        choice.execution,
        {way: 1000 * seconds for way, seconds in choice.seconds.items()},
        choice.why,
    )
