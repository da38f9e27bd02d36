"""What a model costs without the channels that its zeros make useless.

No graph of the model is needed: a probe runs it on a sample and sees which channels have a part in its outputs. That is
an estimate, of what compaction can remove exactly: a channel that no sample wakes, as behind a ReLU, counts as removed.
"""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from torchlasso import distributed
from torchlasso.blocks import Filters, InputChannels
from torchlasso.selection import is_weight, named_parameters
from torchlasso.sharding import any_sharded

# A channel is constant if its values differ by no more than this many units in their last place: what is computed in
# another order, as at the end of a vector, differs by a few.
ROUNDING = 8
# For times: the widths at which a layer is timed, as shares of its channels on both sides, and how often.
WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0)
RUNS = 7


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution, as it is while it is dense.

    Attributes:
        name: of its weight.
        outputs, inputs, groups: its channels on both sides, and the groups they are in.
        weights, biases: how many it has.
        size: the bytes of one of them.
        flops: of one sample: 2 for each weight and position, a multiplication and an addition.
    """

    name: str
    outputs: int
    inputs: int
    groups: int
    weights: int
    biases: int
    size: int
    flops: float


@dataclass(frozen=True)
class Live:
    """Which channels of a layer have a part in what the model computes.

    Attributes:
        layer: which layer.
        outputs: (outputs,) something reads them: the model's output has a gradient with respect to them, of which only
            what comes through inputs that vary over the sample counts.
        inputs: (inputs,) they vary, and something reads them. What the model itself is given always varies.

    So what a residual connection ties together lives and dies together: a filter that writes zeros into a stream cannot
    go while others write there what is read.
    """

    layer: Layer
    outputs: Tensor
    inputs: Tensor

    @property
    def weights(self) -> float:
        """The share of weights between an output and an input that live.

        >>> layer = Layer("w", outputs=4, inputs=2, groups=1, weights=8, biases=4, size=4, flops=16.0)
        >>> Live(layer, torch.tensor([True, True, True, False]), torch.tensor([True, False])).weights
        0.375
        """
        groups, layer = self.layer.groups, self.layer
        ends = self.outputs.view(groups, -1).sum(dim=1) * self.inputs.view(groups, -1).sum(dim=1)  # (groups,)
        return int(ends.sum()) * groups / (layer.outputs * layer.inputs)

    @property
    def biases(self) -> float:
        """The share of outputs that live."""
        return int(self.outputs.sum()) / self.layer.outputs


@dataclass(frozen=True)
class Cost(ABC):
    """What a model costs: something fixed, and what its layers cost by what is left of each.

    Attributes:
        fixed: what does not change: all that is no such layer.
    """

    fixed: float = 0.0

    @abstractmethod
    def of(self, layer: Layer, weights: float, biases: float) -> float:
        """What ``layer`` costs with these shares of its weights and its biases."""

    def left(self, found: Iterable[Live]) -> float:
        """What the model costs with what lives."""
        return self.fixed + sum(self.of(live.layer, live.weights, live.biases) for live in found)

    def dense(self, layers: Iterable[Layer]) -> float:
        """What the model costs with everything."""
        return self.fixed + sum(self.of(layer, 1.0, 1.0) for layer in layers)


class Flops(Cost):
    """Floating-point operations of the layers, for one sample."""

    def of(self, layer: Layer, weights: float, biases: float) -> float:
        return layer.flops * weights


class Parameters(Cost):
    """How many parameters there are."""

    def of(self, layer: Layer, weights: float, biases: float) -> float:
        return layer.weights * weights + layer.biases * biases


class Bytes(Parameters):
    """What the parameters take."""

    def of(self, layer: Layer, weights: float, biases: float) -> float:
        return layer.size * super().of(layer, weights, biases)


@dataclass(frozen=True)
class Latency(Cost):
    """Seconds of a forward pass, by curves of the seconds of each layer at :data:`WIDTHS`."""

    curves: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def of(self, layer: Layer, weights: float, biases: float) -> float:
        if not weights:
            return 0.0
        seconds = dict(self.curves)[layer.name]
        if layer.groups > 1:  # of whose channels it cannot be said in general which a narrower one has
            return weights * seconds[-1]
        shares = [width**2 for width in WIDTHS]
        for low, high, fast, slow in zip(shares, shares[1:], seconds, seconds[1:], strict=False):
            if weights <= high:
                return fast + (slow - fast) * max(0.0, weights - low) / (high - low)
        return seconds[-1]
