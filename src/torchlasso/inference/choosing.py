"""Choose the fastest way to run a layer among the ways with the same outputs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchlasso._core.text import first_line
from torchlasso._core.timing import clock, interleaved
from torchlasso.graph.precision import DOUBLE
from torchlasso.inference.executions import DENSE, executions
from torchlasso.inference.layers import Layer
from torchlasso.inference.matrix import InferenceModule

GAIN = 0.95  # the chosen way takes at most this share of the dense layer's time
ROWS, SAMPLES = 256, 8  # the rows of a linear layer, and samples of a convolution, compared in float64


@dataclass(frozen=True, eq=False)
class ChosenExecution:
    """The chosen way to run a layer.

    Attributes:
        layer: the layer.
        execution: the name of the way.
        module: the module that runs the layer in this way.
        seconds: the time of all its calls in one run of the model, by the names of the timed ways.
        why: the reason if it stays dense.
    """

    layer: Layer
    execution: str
    module: nn.Module
    seconds: dict[str, float]
    why: str = ""

    @property
    def replaces(self) -> bool:
        """Return whether the layer runs in another way than dense."""
        return self.module is not self.layer.module

    @property
    def any_precision(self) -> bool:
        """Return whether the module can run in float64 and on a CPU."""
        return not isinstance(self.module, InferenceModule) or self.module.any_precision

    @property
    def won(self) -> float:
        """The seconds saved in a run of the model."""
        return self.seconds[DENSE] - self.seconds[self.execution] if self.replaces else 0.0

    def undone(self, why: str) -> ChosenExecution:
        """Return the choice of the dense layer."""
        return ChosenExecution(self.layer, DENSE, self.layer.module, self.seconds, why)


@torch.no_grad()
def choose_execution(layer: Layer, seconds: float) -> ChosenExecution:
    """Choose the fastest way to run a layer on its inputs, within about this many seconds."""
    found, troubles = {DENSE: layer.module}, list[str]()
    if layer.why:
        return ChosenExecution(layer, DENSE, layer.module, {}, layer.why)
    examples = Examples.of(layer)
    for name, build in executions().items():
        try:
            module = build(layer)
            if module is not None and examples.fit(module):
                found[name] = module
            elif module is not None:
                troubles.append(f"{name} has other outputs")
        except (RuntimeError, ValueError) as error:  # torch has no such product for this device or precision
            troubles.append(f"{name}: {first_line(error)}")
    if len(found) == 1:
        return ChosenExecution(layer, DENSE, layer.module, {}, "; ".join(troubles) or "it has too few zeros")
    now = clock(layer.weight.device)
    times = interleaved({name: partial(_visit, module, layer) for name, module in found.items()}, seconds, now)
    medians = {name: statistics.median(each) for name, each in times.items()}
    best = min(medians, key=medians.__getitem__)
    if medians[best] > GAIN * medians[DENSE]:
        return ChosenExecution(layer, DENSE, layer.module, medians, "; ".join(["nothing is faster", *troubles]))
    return ChosenExecution(layer, best, found[best], medians)


def _visit(module: nn.Module, layer: Layer) -> None:
    for x in layer.visits:
        module(x)


@dataclass(frozen=True)
class Examples:
    """Inputs and outputs of a layer in float64, with the error that rounding allows.

    In any order of summation, a sum of n products has an error of about ε √n times the sum of their absolute values.
    Only the first rows are compared, since float64 is slow and rows do not depend on each other.
    """

    layer: Layer
    inputs: list[Tensor]
    shapes: list[torch.Size]
    outputs: list[Tensor]
    slack: list[Tensor]

    @classmethod
    def of(cls, layer: Layer) -> Examples:
        """Record the examples of one run of the model."""
        inputs = list({id(x): x for x in layer.visits}.values())
        double = DOUBLE.copied(layer.module)
        absolute = {name: DOUBLE.widened(p).abs() for name, p in double.named_parameters()}
        error = (8 + 2 * math.sqrt(layer.weight[0].numel())) * torch.finfo(layer.weight.dtype).eps
        exact = [DOUBLE.tensor(_some(layer, x)) for x in inputs]
        with DOUBLE.running():
            sums = [functional_call(double, absolute, (x.abs(),)) for x in exact]
            wanted = [double(x) for x in exact]
        shapes = [layer.module(x).shape for x in inputs]
        return cls(layer, inputs, shapes, wanted, [error * each for each in sums])

    def fit(self, module: nn.Module) -> bool:
        """Return whether another module has the same outputs."""
        for x, shape, y, slack in zip(self.inputs, self.shapes, self.outputs, self.slack, strict=True):
            ours = module(x)
            if ours.shape != shape or ours.dtype != x.dtype:
                return False
            if not ((DOUBLE.tensor(_some(self.layer, ours)) - y).abs() <= slack).all():
                return False
        return True


def _some(layer: Layer, x: Tensor) -> Tensor:
    """Return the first rows or samples of a layer's inputs or outputs."""
    if layer.convolves:
        return x[:SAMPLES] if x.dim() == layer.weight.dim() else x  # else a single sample
    return x.reshape(-1, x.shape[-1])[:ROWS]
