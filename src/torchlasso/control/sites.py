"""The layers of a model as sites of channels: which weight maps them, which live, and the values that pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso.penalties.blocks import Filters, InputChannels

# Values that differ by at most this many units in the last place count as equal: the same sum, computed in another
# order as at the end of a vector, differs by a few.
ROUNDING = 8


@dataclass(frozen=True, eq=False)
class Site:
    """A weight that maps input channels to output channels, and the modules that use it.

    Attributes:
        name: of the weight.
        weight: the parameter.
        owners: the modules; several if the weight is shared.
        outputs, inputs: the numbers of channels.
        transposed: whether the first dimension is that of the inputs, as in transposed convolutions.
    """

    name: str
    weight: Tensor
    owners: tuple[nn.Module, ...]
    outputs: int
    inputs: int
    transposed: bool

    @classmethod
    def of(cls, model: nn.Module, name: str, module: nn.Module, weight: Tensor) -> Site:
        """Return the site of a parameter with two or more dimensions."""
        short, w = name.rpartition(".")[2], weight.detach()
        filters, inputs = Filters().fit(module, short), InputChannels().fit(module, short)
        owners = tuple(m for m in model.modules() if any(p is weight for p in m.parameters(recurse=False)))
        counts = len(filters.rows(w)[0]), len(inputs.rows(w)[0])
        return cls(name, weight, owners, *counts, transposed=filters.whole_along(w) != (0,))

    @property
    def dim(self) -> int:
        """The dimension of the channels: the last for a matrix, the one after the batch for a convolution."""
        return 1 if self.weight.dim() > 2 else -1

    @property
    def is_table(self) -> bool:
        """True for an embedding, whose rows are looked up and not multiplied."""
        return all(isinstance(owner, nn.Embedding) for owner in self.owners)

    @property
    def groups(self) -> int:
        """The number of groups of channels: each input is read by the outputs of its group."""
        return self.outputs * self.inputs * self.weight[0, 0].numel() // self.weight.numel()

    @property
    def biases(self) -> int:
        """The number of parameters with one number for each output, beside the weight."""
        beside = [p for p in self.owners[0].parameters(recurse=False) if p.shape == (self.outputs,)]
        return len(beside) * self.outputs

    def with_live(self, channels: int) -> Live:
        """Return so many live channels at each side."""
        return Live(self.groups, torch.arange(self.outputs) < channels, torch.arange(self.inputs) < channels)


@dataclass(frozen=True, eq=False)
class Live:
    """The channels of a weight that take part in the model's outputs.

    Attributes:
        groups: the number of groups of channels.
        outputs: (outputs,) whether something reads them.
        inputs: (inputs,) whether they vary and something reads them.
    """

    groups: int
    outputs: Tensor
    inputs: Tensor

    @property
    def weights(self) -> float:
        """The share of weights between a live input and a live output.

        >>> Live(1, outputs=torch.tensor([True, True, True, False]), inputs=torch.tensor([True, False])).weights
        0.375
        """
        ends = self.outputs.view(self.groups, -1).sum(dim=1), self.inputs.view(self.groups, -1).sum(dim=1)  # (groups,)
        return int(ends[0] @ ends[1]) * self.groups / (len(self.outputs) * len(self.inputs))

    @property
    def biases(self) -> float:
        """The share of live outputs."""
        return int(self.outputs.sum()) / len(self.outputs)


@dataclass(frozen=True)
class LiveParts:
    """The channels and operations of a model that are live.

    Attributes:
        layers: the channels of each layer.
        products: the operations of products of two activations, such as those of attention, for one sample.
        share: the share of these operations that compaction leaves, if it is known.
        parameters: the number of parameters that compaction leaves, by the bytes of each, if it is known.
    """

    layers: Sequence[Live]
    products: float = 0.0
    share: float | None = None
    parameters: Mapping[int, int] | None = None


class ChannelTrace:
    """The values that pass through the modules of a site in one run of the model."""

    def __init__(self, site: Site, batch: int) -> None:
        self.site, self.batch = site, batch
        self.positions = 0.0  # at which the weight is multiplied, for each sample
        self.visits: list[tuple[nn.Module, Tensor]] = []  # the modules that ran, and their inputs
        self.starts: list[Tensor] = []  # inputs that no other site contributes to
        self.misfits: list[nn.Module] = []  # modules that ran without such channels
        device = site.weight.device
        self.outputs = torch.zeros(site.outputs, dtype=torch.bool, device=device)
        self.inputs = torch.zeros(site.inputs, dtype=torch.bool, device=device)

    @property
    def trouble(self) -> str | None:
        """The reason why the live channels cannot be found, if there is one."""
        if self.misfits:
            return f"its {type(self.misfits[0]).__name__} does not turn channels into channels, as a Linear does"
        return None if self.visits else "the forward pass on example_inputs does not run its module"

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        """The hook before the module."""
        dim = self.site.dim
        if len(args) != 1 or not _has_channels(args[0], dim, self.site.inputs):
            self.misfits.append(module)
            return None
        x: Tensor = args[0]
        self.visits.append((module, x.detach()))
        if not x.requires_grad:
            x = x.detach().requires_grad_()
            _on_gradient(x, partial(self._note, self.inputs, None))
            self.starts.append(x)
            return (x,)
        varies = which_vary(x.detach(), dim)
        _on_gradient(x, partial(self._note, self.inputs, varies))  # from all readers, not from this module alone
        return (passed(x, varies, dim),)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The hook behind the module."""
        site = self.site
        if module in self.misfits or not (_has_channels(output, site.dim, site.outputs) and output.requires_grad):
            self.misfits.append(module)
            return
        side, channels = (args[0], site.inputs) if site.transposed else (output, site.outputs)
        self.positions += side.numel() / channels / self.batch
        _on_gradient(output, partial(self._note, self.outputs, None))

    def _note(self, found: Tensor, varies: Tensor | None, grad: Tensor) -> None:
        read = grad.abs().amax(_others(grad, self.site.dim)) != 0  # two passes, quicker than one that looks for zeros
        found |= read if varies is None else read & varies


def passed(x: Tensor, varies: Tensor, dim: int) -> Tensor:
    """Return a view of a value through which no gradient comes back to channels that do not vary."""
    view = x.view_as(x)
    shape = [-1 if d == dim % x.dim() else 1 for d in range(x.dim())]
    _on_gradient(view, lambda grad: torch.where(varies.view(shape), grad, 0.0))
    return view


def _on_gradient(x: Any, hook: Callable[[Tensor], Tensor | None]) -> None:
    x.register_hook(hook)


def _has_channels(x: Any, dim: int, count: int) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1 and x.shape[dim] == count


def _others(x: Tensor, dim: int) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != dim % x.dim())


def which_vary(x: Tensor, dim: int) -> Tensor:
    """Mark the channels of ``x`` that are not constant over everything else."""
    high, low = x.amax(_others(x, dim)), x.amin(_others(x, dim))
    return high - low > ROUNDING * torch.finfo(x.dtype).eps * torch.maximum(high.abs(), low.abs())
