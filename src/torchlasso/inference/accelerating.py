"""Run each layer of a model in the fastest way for its zeros, on this machine."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
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
from torchlasso.export.exported import batch_of, rows_of
from torchlasso.inference.backends import ModelToRun
from torchlasso.inference.backends import backends as known_backends
from torchlasso.inference.by_batch_size import ByBatchSize
from torchlasso.inference.choosing import ChosenExecution, choose_execution
from torchlasso.inference.choosing_backend import Contender, ErrorFunction, Limits, choose_backend
from torchlasso.inference.executions import DENSE
from torchlasso.inference.layers import find_layers, record
from torchlasso.inference.record import AccelerationReport, BackendTiming, LayerAcceleration
from torchlasso.inference.whole import TimedModel, quickest, working

BackendNames = Literal["all"] | str | Sequence[str]


@overload
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    backends: BackendNames = (),
    batch_sizes: Sequence[int] = (),
    tolerance: float = 0.0,
    judge: ErrorFunction | None = None,
    calibration: ExampleInputs | None = None,
    return_report: Literal[False] = False,
) -> nn.Module: ...
@overload
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    backends: BackendNames = (),
    batch_sizes: Sequence[int] = (),
    tolerance: float = 0.0,
    judge: ErrorFunction | None = None,
    calibration: ExampleInputs | None = None,
    return_report: Literal[True],
) -> tuple[nn.Module, AccelerationReport]: ...
def accelerate(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    seconds: float = 10.0,
    compact_first: bool = True,
    backends: BackendNames = (),
    batch_sizes: Sequence[int] = (),
    tolerance: float = 0.0,
    judge: ErrorFunction | None = None,
    calibration: ExampleInputs | None = None,
    return_report: bool = False,
) -> nn.Module | tuple[nn.Module, AccelerationReport]:
    """Make a model for inference with the same outputs, in which each layer runs in the fastest way on this machine.

    Linear layers and convolutions with zeros are timed in several ways, and ways with different outputs are left out:
    unchanged (``dense``); without zero rows and columns, or zero filters and input channels (``channels``); by single
    weights, with MKL (``csr``) or in C++ if there is a compiler (``compiled``); linear layers also by square blocks
    (``blocks-4`` to ``blocks-32``) and, on GPUs that support it, with 2:4 sparsity (``2:4``). The choice is for this
    machine, torch's current number of threads and the batch size of the example; the outputs are right for all sizes.

    With ``backends``, whole models compete as well, each checked against the original and timed on batches of the same
    rows: with batch norms folded into the layers before them (``folded``), with the channels of a pixel beside each
    other too (``channels-last``), compiled with the weights as constants (``inductor``), in other runtimes
    (``onnxruntime``, ``openvino``), and, where a difference is tolerated, in fewer bits (``bfloat16``, ``int8``).

    Args:
        model: any module; it is not changed.
        example_inputs: inputs of the model: a tensor, a tuple of arguments or a dict of keyword arguments.
        seconds: the approximate time for timing, half of it for the layers and half for the whole model. Each way is
            timed at least three times, which may take longer; compaction, compilation and checks come on top.
        compact_first: whether to remove units without effect first, as :func:`torchlasso.compact` does, if the model
            can be exported.
        backends: names of the ways to run the whole model that are tried, or ``"all"``.
        batch_sizes: the sizes for which to choose, each for itself; the rows of the example are repeated. Another size
            runs as the nearest of them. Without any, that of the example.
        tolerance: the largest difference that is accepted from ``bfloat16`` and ``int8``, which are tried only if it is
            above 0: of ``judge``, or else of the outputs on the example, as a share of their size (root mean squares).
        judge: a function that takes a model and returns its error on rows of your own, such as a validation part.
        calibration: inputs like those that will come, from which ``int8`` takes the ranges of its numbers; the example
            inputs by default. A hundred rows are enough.
        return_report: whether to return the choices and timings as well.

    Returns:
        A copy of the model in evaluation mode, with plain modules in the place of layers and without gradients; it
        cannot be trained. Each new module was checked against its layer up to the rounding of a sum, and the whole
        model against the original, in float64. If the whole model does not gain at least 3 %, fewer layers are
        replaced, or none. A chosen backend is a module around its runtime, which cannot be copied or pickled;
        onnxruntime, OpenVINO and int8 take batches of any size, but all other sizes are those of the example. Several
        batch sizes give a module that picks by size. With ``return_report``, also the report.

        A layer stays unchanged, and the report says why, if the model does not call it, as with the projections of
        ``nn.MultiheadAttention``; if the model needs its weight, as the fast path of ``nn.TransformerEncoderLayer``
        does unless ``torch.backends.mha.set_fastpath_enabled(False)`` was called; or if it is parametrised, masked or
        grouped, has hooks, or has a custom forward pass. Two differences remain: if an input is infinite or NaN, a zero
        weight makes a dense layer return NaN, but not a sparse one; and sparse layers do not run under
        ``torch.autocast``.

    Raises:
        ValueError: the model cannot be copied, does not run on the inputs, has weights that are not finite or is
            sharded, ``seconds`` is not above 0, or a backend is not known or needs a tolerance.

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
    limits = Limits(tolerance, judge)
    wanted = _known(backends, limits)
    # a model may write to its inputs
    inputs = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, example_inputs)
    batches = _batches(inputs, batch_sizes) if wanted or batch_sizes else {0: inputs}
    original = _copied(model).eval()
    small, compaction = (
        _compacted(original, inputs) if compact_first else (None, "Not compacted: compact_first is False.")
    )
    base = original if small is None else small
    share = seconds / len(batches) / (2 if wanted else 1)
    found = {n: _layer_by_layer(original, base, given, share, small is not None) for n, given in batches.items()}
    models: dict[int, nn.Module] = {n: timed.model for n, timed in found.items()}
    timings: list[BackendTiming] = []
    if wanted:
        context = ModelToRun(base, inputs, inputs if calibration is None else calibration)
        built = {name: _built(name, context) for name in wanted}
        for n, given in batches.items():
            layers = {} if found[n].model is original else {"layers": Contender(found[n].model)}
            chosen, rows = choose_backend(original, layers | built, given, n, limits, share)
            models[n] = original if chosen == DENSE else (layers | built)[chosen].module or original
            timings += rows
    first = next(iter(models))
    if small is not None and all(each is original for each in models.values()):
        compaction += " The whole model is not faster with it, so no unit was removed."
    before, after = found[first].before, found[first].after
    for row in timings:
        if row.batch == first and row.milliseconds is not None:
            before = row.milliseconds if row.name == DENSE else before
            after = row.milliseconds if row.chosen else after
    report = AccelerationReport(tuple(map(_reported, found[first].choices)), compaction, before, after, tuple(timings))
    fast = (models[first] if len(set(models.values())) == 1 else ByBatchSize(models)).requires_grad_(False)
    return (fast, report) if return_report else fast


def _layer_by_layer(
    original: nn.Module, base: nn.Module, inputs: ExampleInputs, seconds: float, smaller: bool
) -> TimedModel:
    """Choose the way to run each layer of a copy of ``base``; without a gain, the model is the original."""
    base = _copied(base)
    layers = find_layers(base)
    record(base, layers, inputs)
    open_to = sum(not layer.why for layer in layers)
    choices = [choose_execution(layer, seconds / 2 / max(1, open_to)) for layer in layers]
    choices = working(original, base, choices, inputs)
    return quickest(original, base, choices, inputs, seconds / 2, smaller)


def _known(names: BackendNames, limits: Limits) -> list[str]:
    """Return the names of the backends to try."""
    if not (isinstance(limits.tolerance, int | float) and 0 <= limits.tolerance < math.inf):
        raise ValueError(f"tolerance must be a finite number, 0 or more; got {limits.tolerance!r}")
    if names == "all":
        return [name for name, each in known_backends().items() if each.exact or limits.tolerance]
    for name in (names,) if isinstance(names, str) else names:
        if name not in known_backends():
            raise ValueError(f"backends must be 'all' or names among {', '.join(known_backends())}; got {name!r}")
        if not (known_backends()[name].exact or limits.tolerance):
            raise ValueError(f"the backend {name!r} changes the outputs: give a tolerance above 0")
    return [names] if isinstance(names, str) else list(names)


def _batches(inputs: ExampleInputs, sizes: Sequence[int]) -> dict[int, ExampleInputs]:
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"batch_sizes must be whole numbers above 0; got {list(sizes)}")
    return {size: batch_of(inputs, size) for size in sizes or (rows_of(inputs),)}


def _built(name: str, given: ModelToRun) -> Contender:
    """Make a whole model in one way, or say why it cannot be made."""
    way = known_backends()[name]
    try:
        module = way.build(given)
    except Exception as error:  # of any kind: exporters, compilers and runtimes have their own classes
        return Contender(None, way.exact, first_line(error))
    return Contender(module, way.exact, "" if module is not None else "nothing in the model that it would change")


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
