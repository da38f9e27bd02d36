"""Run the layers of a model in the ways that are quickest with its zeros, on this machine."""

from __future__ import annotations

import copy
import math
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torchlasso._core.arguments import check_inputs, check_model
from torchlasso._core.running import Inputs
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
    example_inputs: Inputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: Literal[False] = False,
) -> nn.Module: ...
@overload
def accelerate(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: Literal[True],
) -> tuple[nn.Module, AccelerationReport]: ...
def accelerate(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    return_report: bool = False,
) -> nn.Module | tuple[nn.Module, AccelerationReport]:
    """A model for inference with the same outputs, each of whose layers runs in the way that is quickest here.

    Linear layers and convolutions that have zeros are timed in several ways, and those that give something else are
    left out: as they are (``dense``); without the rows and columns, or filters and input channels, that are zero
    (``channels``); by single weights, with MKL (``csr``) or in C++, where a compiler works (``compiled``); linear
    layers by square blocks (``blocks-4`` to ``blocks-32``) and, on GPUs that can, by two of each four weights
    (``2:4``). What is chosen is for this machine, as many threads as torch uses now, and batches as large as the
    example's; the outputs are right for any.

    Args:
        model: any module; it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, as the model will be given.
        seconds: about how long timing may take, half of it for the layers and half for the whole model. All is timed
            three times at least, which may be longer; compaction, compilation and checks come on top.
        compact_first: take out units that make no difference first, as :func:`torchlasso.compact` does, where the model
            can be exported.
        return_report: return the choices and the timings, too.

    Returns:
        A copy of the model in evaluation, whose parameters have no gradient, with plain modules in the place of layers;
        and, where asked for, the report. It cannot be trained. Each of those modules gave what the layer gives, up to
        the rounding of a sum, and the whole model what the original gives, in float64. If the whole model did not win
        3 % by it, fewer layers are replaced, or none.

        A layer stays as it is, and the report says why, if the model does not call it, as ``nn.MultiheadAttention``
        does not call its projections; if the model needs its weight, as the fast path of ``nn.TransformerEncoderLayer``
        does, unless ``torch.backends.mha.set_fastpath_enabled(False)`` was called; or if it is parametrised or masked,
        in groups, has hooks or a class with a forward pass of its own. Two differences are left: where an input is
        infinite or NaN, a weight that is zero makes a dense layer give NaN, but not a sparse one; and sparse layers do
        not run under ``torch.autocast``.

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
        raise ValueError("model is sharded, and accelerate needs whole parameters")
    # a model may write into what it is given
    inputs = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, example_inputs)
    original = _copied(model).eval()
    small, compaction = _compacted(original, inputs) if compact_first else (None, "Not compacted: not asked for.")
    base = _copied(original) if small is None else small
    layers = find_layers(base)
    record(base, layers, inputs)
    open_to = sum(not layer.why for layer in layers)
    choices = [choose_execution(layer, seconds / 2 / max(1, open_to)) for layer in layers]
    choices = working(original, base, choices, inputs)
    found = quickest(original, base, choices, inputs, seconds / 2, smaller=small is not None)
    if small is not None and found.model is original:
        compaction += " The whole model is not quicker with that, and nothing went."
    report = AccelerationReport(tuple(map(_reported, found.choices)), compaction, found.before, found.after)
    fast = found.model.requires_grad_(False)
    return (fast, report) if return_report else fast


@torch.no_grad()
def _copied(model: nn.Module) -> nn.Module:
    """A copy, whose parameters are leaves also where a scripted module would make them anew."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # of any kind: modules may say how they are copied
        raise ValueError(f"model cannot be copied: {first_line(error)}") from error


def _compacted(model: nn.Module, inputs: Inputs) -> tuple[nn.Module | None, str]:
    """The smaller model, if it is smaller, and what became of it."""
    try:
        small, report, _ = compacted(model, inputs)
    except (RuntimeError, ValueError) as error:  # it cannot be exported
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
