"""The cost of a model with all its channels, and with its live channels alone."""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchlasso._core.running import undisturbed
from torchlasso._core.timing import clock, interleaved
from torchlasso.control.live_channels import Probe
from torchlasso.control.sites import ChannelTrace, LiveParts, Site
from torchlasso.distributed.processes import take_from_first_

# The widths at which a layer is timed, as shares of its channels on both sides, and the number of runs at each.
WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0)
RUNS = 7


@dataclass(frozen=True)
class LayerCost:
    """The cost of a dense linear layer or convolution.

    Attributes:
        weights, biases: their numbers.
        size: the bytes of one of them.
        flops: of one sample: 2 for each weight and position, a multiplication and an addition.
        seconds: the time at each of :data:`WIDTHS`, if the target is a latency.
    """

    weights: int
    biases: int
    size: int
    flops: float
    seconds: tuple[float, ...] = ()

    @classmethod
    def of(cls, trace: ChannelTrace, seconds: Sequence[float] = ()) -> LayerCost:
        """Return the layer of a trace."""
        w = trace.site.weight
        flops = 2 * w.numel() * trace.positions
        return cls(w.numel(), trace.site.biases, w.element_size(), flops, tuple(seconds))


@dataclass(frozen=True)
class Cost(ABC):
    """The cost of a model: a sum over its layers, by their live shares, and a fixed part.

    Attributes:
        what: its name in messages.
        counted: whether a target can be a number, and not only a share.
        layers: the layers, in the order of the probe.
        fixed: the cost of everything else.
    """

    what: ClassVar[str]
    counted: ClassVar[bool] = True
    layers: tuple[LayerCost, ...]
    fixed: float = 0.0

    @classmethod
    @abstractmethod
    def measured(cls, probe: Probe) -> Cost:
        """Measure the model of ``probe``."""

    @abstractmethod
    def of(self, layer: LayerCost, weights: float, biases: float) -> float:
        """Return the cost of ``layer`` with these shares of its weights and biases."""

    @property
    def dense(self) -> float:
        """The cost of the model with all its channels."""
        return self.fixed + sum(self.of(layer, 1.0, 1.0) for layer in self.layers)

    def left(self, found: LiveParts, sites: Iterable[Site]) -> float:
        """Return the cost with the live channels alone, at the sites of the model as it is now."""
        return self.fixed + sum(self.left_in_layers(found, sites))

    def left_in_layers(self, found: LiveParts, sites: Iterable[Site]) -> list[float]:
        """Return the cost of each layer with the live channels alone."""
        left = []
        for layer, live, site in zip(self.layers, found.layers, sites, strict=True):
            biases = live.biases * site.biases / layer.biases if layer.biases else 0.0
            left.append(self.of(layer, live.weights * site.weight.numel() / layer.weights, biases))
        return left

    def state_dict(self) -> dict[str, Any]:
        """Return all numbers, since times would differ if they were taken again."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Cost:
        """Return the cost that the state was taken from."""
        layers = (LayerCost(**{**layer, "seconds": tuple(layer["seconds"])}) for layer in state["layers"])
        return cls(**{**state, "layers": tuple(layers)})


@dataclass(frozen=True)
class Flops(Cost):
    """Floating-point operations, for one sample.

    Attributes:
        products: those of products of two activations, such as those of attention.
        live: how many of them were live in the dense model. A run on a sample sees the others as dead, such as the
            attention of tokens that nothing reads in the last layer, but compaction removes channels only.
    """

    what = "the FLOPs"
    products: float = 0.0
    live: float = 0.0

    @classmethod
    def measured(cls, probe: Probe) -> Cost:
        traces, found = probe.dense()
        layers, samples = tuple(map(LayerCost.of, traces)), len(probe.inputs[0])
        products = found.flops / samples
        rest = probe.flops() - cls(layers, 0.0, products).dense
        return cls(layers, max(0.0, rest), products, found.live / samples)

    @property
    def dense(self) -> float:
        return super().dense + self.products

    def left(self, found: LiveParts, sites: Iterable[Site]) -> float:
        share = found.share
        if share is None:
            share = found.products / self.live if self.live else 1.0
        return super().left(found, sites) + self.products * share

    def of(self, layer: LayerCost, weights: float, biases: float) -> float:
        return layer.flops * weights


class Parameters(Cost):
    """The number of parameters."""

    what = "the parameters"

    @classmethod
    def measured(cls, probe: Probe) -> Cost:
        layers = tuple(map(LayerCost.of, probe.dense()[0]))
        return cls(layers, sum(p.numel() for p in probe.model.parameters()) - cls(layers).dense)

    def left(self, found: LiveParts, sites: Iterable[Site]) -> float:
        known = found.parameters
        return super().left(found, sites) if known is None else sum(known.values())

    def of(self, layer: LayerCost, weights: float, biases: float) -> float:
        return layer.weights * weights + layer.biases * biases


class Bytes(Cost):
    """The bytes of the parameters."""

    what = "the bytes"

    @classmethod
    def measured(cls, probe: Probe) -> Cost:
        layers = tuple(map(LayerCost.of, probe.dense()[0]))
        return cls(layers, sum(p.numel() * p.element_size() for p in probe.model.parameters()) - cls(layers).dense)

    def left(self, found: LiveParts, sites: Iterable[Site]) -> float:
        known = found.parameters
        return super().left(found, sites) if known is None else sum(size * count for size, count in known.items())

    def of(self, layer: LayerCost, weights: float, biases: float) -> float:
        return layer.size * (layer.weights * weights + layer.biases * biases)


class Latency(Cost):
    """Seconds of a forward pass of the sample.

    The time of a layer is estimated by its number of weights: it is that of a layer with as many weights which is
    equally narrow on both sides. The time of a grouped convolution is proportional to its weights.
    """

    what = "the latency"
    counted = False

    @classmethod
    def measured(cls, probe: Probe) -> Cost:
        traces, _ = probe.dense()
        with undisturbed(probe.model), torch.no_grad():
            whole = _seconds(probe.model, {}, probe.inputs)
            rows = [_curve(trace) for trace in traces]
        times = torch.tensor([[whole] * len(WIDTHS), *rows], dtype=torch.float64)
        take_from_first_([times])  # all processes have to steer by the same times
        (whole, *_), *rows = times.tolist()
        layers = tuple(map(LayerCost.of, traces, rows))
        return cls(layers, max(0.0, whole - cls(layers).dense))

    def of(self, layer: LayerCost, weights: float, biases: float) -> float:
        if not weights:
            return 0.0
        points = zip((width**2 for width in WIDTHS), layer.seconds, strict=True)
        for (low, fast), (high, slow) in pairwise(points):
            if weights <= high:
                return fast + (slow - fast) * max(0.0, weights - low) / (high - low)
        return layer.seconds[-1]


def _curve(trace: ChannelTrace) -> list[float]:
    """Return the seconds at each of the widths, increasing with the width."""
    site = trace.site
    if site.groups > 1:  # the channels of a narrower one would depend on its groups
        whole = sum(_seconds(module, {}, (x,)) for module, x in trace.visits)
        return [whole * width**2 for width in WIDTHS]
    return list(accumulate((sum(_narrowed(site, *visit, width) for visit in trace.visits) for width in WIDTHS), max))


def _narrowed(site: Site, module: nn.Module, x: Tensor, width: float) -> float:
    """Return the seconds of ``module`` on ``x`` with a share of the channels on both sides."""
    outputs, inputs = math.ceil(width * site.outputs), math.ceil(width * site.inputs)
    first, second = (inputs, outputs) if site.transposed else (outputs, inputs)
    tensors = {
        name: p[:first, :second].contiguous() if p is site.weight else p[:outputs] if p.shape == (site.outputs,) else p
        for name, p in module.named_parameters(recurse=False)
    }
    return _seconds(module, tensors, (x.narrow(site.dim, 0, inputs).contiguous(),))


def _seconds(module: nn.Module, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> float:
    """Return the seconds of a forward pass with these tensors in the place of the module's own."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    replaced = {f"module.{name}": tensor for name, tensor in {**buffers, **tensors}.items()}
    copies = tuple(x.detach().clone() for x in inputs)
    return functional_call(_Stopwatch(module), replaced, copies)  # type: ignore[no-any-return]


class _Stopwatch(nn.Module):
    """A module whose forward pass returns the median time of forward passes of another module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> float:
        run, now = partial(self.module, *inputs), clock(inputs[0].device)
        return statistics.median(interleaved({"": run}, 0.0, now, rounds=(RUNS, RUNS))[""])
