"""The live channels of a model, found by running it on a sample, without its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from torchlasso._core.text import first_line
from torchlasso.distributed.sharding import any_sharded
from torchlasso.penalties.blocks import Filters, InputChannels
from torchlasso.selection import named_parameters, weights_of

# Values that differ by no more than this many units in the last place are one: computed in another order, as at the end
# of a vector, the same sum differs by a few.
ROUNDING = 8

# Functions that are flat on one side, and what the slope is there instead while it is looked what lives.
RECTIFIERS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardswish_")
SLOPE = 0.3


@dataclass(frozen=True, eq=False)
class Site:
    """A weight that maps input channels to output channels, and the modules that do so with it.

    Attributes:
        name: the weight's.
        weight: the weight itself, as the optimizer has it.
        owners: the modules: several where it is shared.
        outputs, inputs: its channels.
        transposed: whether its first dimension is that of the inputs, as in transposed convolutions.
    """

    name: str
    weight: Tensor
    owners: tuple[nn.Module, ...]
    outputs: int
    inputs: int
    transposed: bool

    @classmethod
    def of(cls, model: nn.Module, name: str, module: nn.Module, weight: Tensor) -> Site:
        """The site of a parameter with two or more dimensions."""
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
    def groups(self) -> int:
        """In how many groups the channels are: each input is read by the outputs of its group."""
        return self.outputs * self.inputs * self.weight[0, 0].numel() // self.weight.numel()

    @property
    def biases(self) -> int:
        """The number of parameters with one number for each output, beside the weight."""
        beside = [p for p in self.owners[0].parameters(recurse=False) if p.shape == (self.outputs,)]
        return len(beside) * self.outputs


@dataclass(frozen=True, eq=False)
class Live:
    """The channels of a weight that take part in the model's outputs.

    Attributes:
        groups: in how many groups they are.
        outputs: (outputs,) something reads them.
        inputs: (inputs,) they vary, and something reads them.
    """

    groups: int
    outputs: Tensor
    inputs: Tensor

    @property
    def weights(self) -> float:
        """The share of weights between an input and an output that live.

        >>> Live(1, outputs=torch.tensor([True, True, True, False]), inputs=torch.tensor([True, False])).weights
        0.375
        """
        ends = self.outputs.view(self.groups, -1).sum(dim=1), self.inputs.view(self.groups, -1).sum(dim=1)  # (groups,)
        return int(ends[0] @ ends[1]) * self.groups / (len(self.outputs) * len(self.inputs))

    @property
    def biases(self) -> float:
        """The share of outputs that live."""
        return int(self.outputs.sum()) / len(self.outputs)


class ChannelTrace:
    """The values that pass through the modules of a site in one run of the model."""

    def __init__(self, site: Site, batch: int) -> None:
        self.site, self.batch = site, batch
        self.positions = 0.0  # at which the weight is multiplied, for each sample
        self.visits: list[tuple[nn.Module, Tensor]] = []  # what ran, on what
        self.starts: list[Tensor] = []  # inputs that no other site has a part in
        self.misfits: list[nn.Module] = []  # what ran, but has no such channels
        device = site.weight.device
        self.outputs = torch.zeros(site.outputs, dtype=torch.bool, device=device)
        self.inputs = torch.zeros(site.inputs, dtype=torch.bool, device=device)

    @property
    def trouble(self) -> str | None:
        """Why it cannot be said what lives, if it cannot."""
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
        varies = _varies(x.detach(), dim)
        _on_gradient(x, partial(self._note, self.inputs, varies))  # of all that read it, not of this module alone
        passed = x.view_as(x)
        shape = [-1 if d == dim % x.dim() else 1 for d in range(x.dim())]
        _on_gradient(passed, lambda grad: torch.where(varies.view(shape), grad, 0.0))
        return (passed,)

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
        read = (grad != 0).any(dim=_others(grad, self.site.dim))
        found |= read if varies is None else read & varies


class Awake(TorchFunctionMode):
    """Rectifiers let pass some of what they would hold back.

    A unit behind one that no sample wakes would be taken for a constant else. That is not so for other samples, and a
    λ that falls since such units seem to be gone never brings them to zero.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name not in RECTIFIERS:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        return F.leaky_relu(x, SLOPE, inplace=name.endswith("_") or kwargs.get("inplace", False))


class Probe:
    """Runs a model on a sample to see which channels live, and leaves the model as it was.

    An output lives if the model's outputs have a gradient with respect to it, an input if it also varies over the
    sample; of gradients that come back through an input which does not vary nothing counts. So a channel is dead if its
    value is a constant or if nothing reads it, and what a residual connection ties together lives and dies together: a
    filter that adds zeros to a stream cannot go while others add to it what is read. What the model is given and what
    it returns keep their channels, but for inputs that have no weight.

    That is an estimate of what can be removed: that a constant may not be foldable at the padding of a convolution is
    not seen, and a unit that no sample wakes, behind something flat that is no ReLU, is taken for a constant.

    Args:
        model: the model.
        params: its penalised parameters.
        example_inputs: what the model is called with: a batch of varied samples, a tensor or a tuple of tensors.

    Raises:
        ValueError: the sample or the model is not fit for it; the message says why.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> alive = [torch.ones(4, 3), torch.ones(2, 4)]
        >>> alive[0][1], alive[1][:, 2] = 0, 0
        >>> probe = Probe(model, [model[0].weight, model[2].weight], torch.randn(16, 3))
        >>> [live.weights for live in probe(alive)]
        [0.5, 0.5]
    """

    def __init__(self, model: nn.Module, params: Sequence[Tensor], example_inputs: Tensor | tuple[Tensor, ...]) -> None:
        self.model, self.params = model, list(params)
        self.inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        self._check()
        chosen = set(self.params)
        weights = {p for _, _, p in weights_of(model)}
        sites = [
            Site.of(model, name, module, p)
            for name, module, p in named_parameters(model)
            if (p in chosen or p in weights) and p.dim() > 1 and p.numel()
        ]
        traces = self._run(sites, {})
        for trace in traces:
            if trace.trouble and trace.site.weight in chosen:
                way_out = "leave it alone with a Rule, or use TargetSparsity"
                raise ValueError(f"{trace.site.name} is penalised, but {trace.trouble}; {way_out}")
        # a layer without a penalty shrinks with its neighbours all the same, if it is seen to have channels
        self.sites = [trace.site for trace in traces if not trace.trouble]
        if not any(site.weight in chosen for site in self.sites):
            raise ValueError("nothing that is penalised is the weight of a layer")

    def _check(self) -> None:
        own = list(self.model.parameters())
        if any_sharded(own):
            raise ValueError("it needs whole parameters, and these are sharded; TargetSparsity can do with shards")
        if strangers := len(set(self.params) - set(own)):
            raise ValueError(f"{strangers} of the optimizer's {len(self.params)} penalised parameters are not of model")
        tensors = [x for x in self.inputs if isinstance(x, Tensor) and x.dim()]
        if len(tensors) < len(self.inputs) or not any(bool((x != x[:1]).any()) for x in tensors):
            raise ValueError("example_inputs must be a batch of varied samples, a tensor or a tuple of tensors")

    def __call__(self, alive: Sequence[Tensor]) -> list[Live]:
        """Return masks of the channels that live if only these weights are there, in the order of params."""
        traces = self._run(self.sites, dict(zip(self.params, alive, strict=True)))
        return [Live(trace.site.groups, trace.outputs.cpu(), trace.inputs.cpu()) for trace in traces]

    def follow(self, params: Sequence[Tensor]) -> None:
        """Let these be the penalised parameters from now on.

        Raises:
            ValueError: one of them is not the model's.
        """
        if len(params) != len(self.params) or any(a is not b for a, b in zip(params, self.params, strict=True)):
            self.params = list(params)
            self._check()

    def refresh(self) -> None:
        """Look at the layers anew, after the model became smaller."""
        owners = {name: module for name, module, _ in named_parameters(self.model)}
        self.sites = [Site.of(self.model, site.name, owners[site.name], site.weight) for site in self.sites]

    def dense(self) -> list[ChannelTrace]:
        """Return the values that pass through the layers of the model as it is."""
        return self._run(self.sites, {})

    def _run(self, sites: Sequence[Site], alive: Mapping[Tensor, Tensor]) -> list[ChannelTrace]:
        traces = [ChannelTrace(site, len(self.inputs[0])) for site in sites]
        with undisturbed(self.model), torch.enable_grad():
            with ExitStack() as stack:
                for trace in traces:
                    for module in trace.site.owners:
                        stack.callback(module.register_forward_pre_hook(trace.enter).remove)
                        stack.callback(module.register_forward_hook(trace.leave).remove)
                outputs = self._forward(alive)
            ends = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
            starts = [x for trace in traces for x in trace.starts]
            if starts and not ends:
                raise ValueError("the model's outputs have no gradient, so that it cannot be seen what they depend on")
            if starts:
                generator = torch.Generator().manual_seed(0)
                directions = [torch.randn(x.shape, generator=generator).to(x) for x in ends]
                torch.autograd.grad(ends, starts, directions, allow_unused=True)
        return traces

    def _forward(self, alive: Mapping[Tensor, Tensor]) -> Any:
        # detached: the gradients of weights are not needed, and those that they hold stay
        weights = {name: (p * alive[p] if p in alive else p).detach() for name, p in self.model.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        inputs = tuple(x.detach().clone() for x in self.inputs)
        try:
            with Awake():
                return functional_call(self.model, {**weights, **buffers}, inputs)
        except Exception as error:
            raise ValueError(f"the forward pass on example_inputs failed: {first_line(error)}") from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode; afterwards it and the random numbers are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = {"device_type": next(iter(devices)).type} if devices else {}
    with torch.random.fork_rng(devices, **kind):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _on_gradient(x: Any, hook: Callable[[Tensor], Tensor | None]) -> None:
    x.register_hook(hook)


def _has_channels(x: Any, dim: int, count: int) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1 and x.shape[dim] == count


def _others(x: Tensor, dim: int) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != dim % x.dim())


def _varies(x: Tensor, dim: int) -> Tensor:
    """Mark the channels of ``x`` that are not constant over everything else."""
    high, low = x.amax(_others(x, dim)), x.amin(_others(x, dim))
    return high - low > ROUNDING * torch.finfo(x.dtype).eps * torch.maximum(high.abs(), low.abs())
