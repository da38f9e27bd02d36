"""The layers of a model that may run in another way, and their inputs in a run of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchlasso._core.running import ExampleInputs, as_arguments
from torchlasso._core.text import first_line


@dataclass(eq=False)
class Layer:
    """A linear layer or convolution.

    Attributes:
        names: all names of the module in the model.
        module: the original layer.
        weight: (outputs, inputs of a group, ...), whether or not the layer stores it transposed.
        sparsity: the share of zeros.
        why: the reason if it can only run dense; otherwise an empty string.
        visits: the inputs of all its calls in one run of the model; equal inputs are one tensor.
    """

    names: list[str]
    module: nn.Module
    weight: Tensor
    sparsity: float
    why: str
    visits: list[Tensor] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]

    @property
    def bias(self) -> Tensor | None:
        """The bias: one number for each output."""
        bias = self.module._parameters.get("bias")
        return None if bias is None else bias.detach()

    @property
    def convolves(self) -> bool:
        """Return whether it is a convolution."""
        return self.weight.dim() > 2

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The hook before the module."""
        given = [*args, *kwargs.values()]
        if len(given) != 1 or kwargs.keys() - {"input"} or not isinstance(given[0], Tensor):
            self.why = "it is not called with one tensor"
            return
        x = given[0].detach()
        like = [v for v in self.visits if (v.shape, v.stride(), v.dtype) == (x.shape, x.stride(), x.dtype)]
        self.visits.append(like[0] if like else x)


def find_layers(model: nn.Module) -> list[Layer]:
    """Find the linear layers and convolutions of a model, including classes that inherit their forward pass.

    Raises:
        ValueError: a weight is not finite.
    """
    layouts, found = _layouts(), dict[nn.Module, Layer]()
    for name, module in model.named_modules(remove_duplicate=False):
        if module in found:
            found[module].names.append(name)
        elif layout := layouts.get(getattr(type(module), "forward", None)):  # scripted modules have no such forward
            if is_lazy(module.weight):
                continue
            weight = layout(cast(Tensor, module.weight).detach())
            if not weight.isfinite().all():
                raise ValueError(f"model has weights that are not finite, in {name or 'its only layer'}")
            sparsity = int((weight == 0).sum()) / max(1, weight.numel())
            why = _why_not(module) or ("" if sparsity else "no weight is zero")
            found[module] = Layer([name], module, weight, sparsity, why)
    return list(found.values())


def _layouts() -> dict[Any, Callable[[Tensor], Tensor]]:
    """Return functions from a layer's weight to (outputs, inputs, ...), by the forward pass of its class."""
    classes = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    known: dict[Any, Callable[[Tensor], Tensor]] = {cls.forward: lambda w: w for cls in classes}
    loaded = sys.modules.get("transformers.pytorch_utils")  # loaded already if a model has such layers
    if loaded is not None:
        known[loaded.Conv1D.forward] = torch.t
    return known


def _why_not(module: nn.Module) -> str:
    """Return the reason if a layer has to stay dense, or an empty string."""
    if "weight" not in module._parameters:
        return "its weight is computed and not a parameter"  # parametrised, or masked
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks or a custom forward pass"
    if not module._parameters["weight"].is_floating_point():  # type: ignore[union-attr]
        return "its weights are not real numbers"
    return "its channels are in groups" if getattr(module, "groups", 1) > 1 else ""


def record(model: nn.Module, layers: Iterable[Layer], inputs: ExampleInputs) -> None:
    """Run a model once, and record the inputs of the layers that may run in another way.

    Raises:
        ValueError: the model does not run on the inputs.
    """
    args, kwargs = as_arguments(inputs)
    free = [layer for layer in layers if not layer.why]
    with ExitStack() as stack, torch.no_grad():
        for layer in free:
            stack.callback(layer.module.register_forward_pre_hook(layer.enter, with_kwargs=True).remove)
        try:
            model(*args, **kwargs)
        except Exception as error:  # any exception: this is the model's own code
            raise ValueError(f"model does not run on example_inputs: {first_line(error)}") from error
    for layer in free:
        if not (layer.visits or layer.why):
            layer.why = "the model does not call it"
