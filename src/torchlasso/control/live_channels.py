"""The live channels of a model, found by running it on a sample, without its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from torchlasso._core.flops import counted_flops
from torchlasso._core.running import undisturbed
from torchlasso._core.text import first_line
from torchlasso.control.products import ActivationProducts
from torchlasso.control.sites import ChannelTrace, Live, LiveParts, Site, passed, which_vary
from torchlasso.distributed.sharding import any_sharded
from torchlasso.weights import named_parameters, weights_of

# Functions that are flat on one side, with the slope that replaces it there while the live channels are searched.
RECTIFIERS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardswish_")
SLOPE = 0.3


class Awake(TorchFunctionMode):
    """Rectifiers with a small slope where they are flat.

    Without it, a unit behind a rectifier that no sample activates would be taken for a constant. Other samples may
    activate it; and if λ fell because such units seem to be gone, it would never bring them to zero.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name not in RECTIFIERS:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        return F.leaky_relu(x, SLOPE, inplace=name.endswith("_") or kwargs.get("inplace", False))


class Probe:
    """A run of a model on a sample that finds the live channels, and leaves the model as it was.

    *Live* here means: an output lives if the model's outputs have a gradient with respect to it, and an input if it
    also varies over the sample. Gradients that come back through a constant input do not count. So a channel is dead if
    its value is a constant or if nothing reads it, and channels that a residual connection ties together live and die
    together: a filter that adds zeros to a stream has to stay while others add values to it that are read. The inputs
    and outputs of the model keep their channels, except for inputs without a weight. An embedding has no FLOPs: what it
    looks up is an activation, whose channels are dead where they do not vary.

    This is an estimate of what compaction can remove. It does not see that a constant may not be foldable at the
    padding of a convolution, and it takes a unit for a constant if no sample activates it and the activation is flat
    but not a ReLU. See :class:`~torchlasso.control.removable.Removable` for units that have to stay.

    Args:
        model: the model.
        params: its penalised parameters.
        example_inputs: what the model is called with: a batch of varied samples, a tensor or a tuple of tensors.

    Raises:
        ValueError: the sample or the model is not fit for it; the message says why.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> params = [model[0].weight, model[2].weight]
        >>> probe = Probe(model, params, torch.randn(16, 3))
        >>> weights = [p.detach().clone() for p in params]
        >>> weights[0][1], weights[1][:, 2] = 0, 0
        >>> [live.weights for live in probe(weights).layers]
        [0.5, 0.5]
    """

    def __init__(self, model: nn.Module, params: Sequence[Tensor], example_inputs: Tensor | tuple[Tensor, ...]) -> None:
        self.model, self.params = model, list(params)
        self.inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        self._known = set(model.parameters())
        self._check()
        chosen = set(self.params)
        weights = {p for _, _, p in weights_of(model)}
        sites = [
            Site.of(model, name, module, p)
            for name, module, p in named_parameters(model)
            if (p in chosen or p in weights) and p.dim() > 1 and p.numel()
        ]
        traces, _ = self._run(sites, {})
        for trace in traces:
            if trace.trouble and trace.site.weight in chosen and not trace.site.is_table:
                way_out = "leave it alone with a Rule, or use TargetSparsity, or TargetCount(units=...) for units"
                raise ValueError(f"{trace.site.name} is penalised, but {trace.trouble}; {way_out}")
        # a layer without a penalty shrinks with its neighbours, too, if it has channels
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

    def __call__(self, weights: Sequence[Tensor]) -> LiveParts:
        """Return what lives under these weights, given in the order of params."""
        traces, products = self._run(self.sites, dict(zip(self.params, weights, strict=True)))
        layers = [Live(trace.site.groups, trace.outputs.cpu(), trace.inputs.cpu()) for trace in traces]
        return LiveParts(layers, products.live / len(self.inputs[0]))

    def follow(self, params: Sequence[Tensor]) -> None:
        """Take these as the penalised parameters from now on.

        Raises:
            ValueError: one of them does not belong to the model, or did not when the probe was made.
        """
        if len(params) != len(self.params) or any(a is not b for a, b in zip(params, self.params, strict=True)):
            self.params = list(params)
            self._check()
            chosen = set(params) - self._known
            if new := [name for name, p in self.model.named_parameters() if p in chosen]:
                raise ValueError(
                    f"the model has grown by {', '.join(new[:6])}, whose cost is not counted: make the controller anew "
                    "after the model has grown"
                )

    def refresh(self) -> None:
        """Read the layers again after the model became smaller."""
        owners = {name: module for name, module, _ in named_parameters(self.model)}
        self.sites = [Site.of(self.model, site.name, owners[site.name], site.weight) for site in self.sites]

    def dense(self) -> tuple[list[ChannelTrace], ActivationProducts]:
        """Return the values that pass through the layers of the model as it is, and its products of two activations."""
        return self._run(self.sites, {})

    def flops(self) -> float:
        """Return the operations of the model as it is, for one sample."""
        with undisturbed(self.model), torch.no_grad(), counted_flops() as counter:
            self._forward({})
        return counter.get_total_flops() / len(self.inputs[0])

    def _run(
        self, sites: Sequence[Site], given: Mapping[Tensor, Tensor]
    ) -> tuple[list[ChannelTrace], ActivationProducts]:
        traces, products = [ChannelTrace(site, len(self.inputs[0])) for site in sites], ActivationProducts()
        looked_up = list[Tensor]()
        with undisturbed(self.model), torch.enable_grad():
            with ExitStack() as stack:
                for module in self.model.modules():
                    if isinstance(module, nn.Embedding):
                        stack.callback(module.register_forward_hook(partial(_as_activation, looked_up)).remove)
                    if isinstance(module, nn.RNNBase):
                        stack.callback(module.register_forward_pre_hook(_outside(_without_constants)).remove)
                for trace in traces:
                    for module in trace.site.owners:
                        stack.callback(module.register_forward_pre_hook(_outside(trace.enter)).remove)
                        stack.callback(module.register_forward_hook(_outside(trace.leave)).remove)
                with products:
                    outputs = self._forward(given)
            ends = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
            starts = looked_up + [x for trace in traces for x in trace.starts]
            if starts and not ends:
                raise ValueError("the model's outputs have no gradient, so that it cannot be seen what they depend on")
            if starts:
                generator = torch.Generator().manual_seed(0)
                directions = [torch.randn(x.shape, generator=generator).to(x) for x in ends]
                torch.autograd.grad(ends, starts, directions, allow_unused=True)
        return traces, products

    def _forward(self, given: Mapping[Tensor, Tensor]) -> Any:
        # detached: the gradients of weights are not needed, and the present ones have to stay
        weights = {name: given.get(p, p).detach() for name, p in self.model.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        inputs = tuple(x.detach().clone() for x in self.inputs)
        try:
            with Awake():
                return functional_call(self.model, {**weights, **buffers}, inputs)
        except Exception as error:
            raise ValueError(f"the forward pass on example_inputs failed: {first_line(error)}") from error


def _outside(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Take the tensors of a hook past the modes that watch the model's functions, which would take most of its time."""

    def unwatched(*args: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return hook(*args)

    return unwatched


def _as_activation(looked_up: list[Tensor], module: nn.Module, args: Any, output: Any) -> Tensor | None:
    """The hook behind an embedding: give what it looked up a gradient, as the values of other layers have one."""
    if not isinstance(output, Tensor) or output.requires_grad:
        return None
    looked_up.append(output.detach().requires_grad_())
    return looked_up[-1].clone()  # which the model may change in place


def _without_constants(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The hook before a recurrent layer: a constant that it reads is part of its bias, as in other layers."""
    if not args or not isinstance(args[0], Tensor) or not args[0].requires_grad:
        return None
    x: Tensor = args[0]
    return passed(x, which_vary(x.detach(), -1), -1), *args[1:]
