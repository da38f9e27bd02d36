"""Count the floating-point operations of a run with torch's counter, which reads the shapes of each operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from torchlasso._core.running import ExampleInputs, as_arguments, undisturbed
from torchlasso._core.text import first_line


def _fused_layer(x: torch.Size, w_ih: torch.Size, w_hh: torch.Size, *_: Any, **__: Any) -> int:
    """Count the operations of a layer of an LSTM in one direction, which is one operator on a CPU."""
    return 2 * x[:-1].numel() * (w_ih.numel() + w_hh.numel())


def _fused_module(x: torch.Size, weights: list[torch.Size], *_: Any, **__: Any) -> int:
    """Count the operations of all layers of a recurrent module, which are one operator on a GPU."""
    return 2 * x[:-1].numel() * sum(w.numel() for w in weights if len(w) > 1)


RECURRENT = {  # the operators that torch's counter does not know
    torch.ops.aten.mkldnn_rnn_layer: _fused_layer,
    torch.ops.aten._cudnn_rnn: _fused_module,
}


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count the operations of matrix products, convolutions and attentions, two for each multiplication and addition.

    >>> with counted_flops() as counter:
    ...     _ = torch.nn.Linear(3, 2)(torch.ones(5, 3))
    >>> counter.get_total_flops()
    60
    """
    counter, fast = FlopCounterMode(display=False, custom_mapping=RECURRENT), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see attention that is one operator,
    try:
        with counter, sdpa_kernel(SDPBackend.MATH):  # nor that which is fused on a CPU
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def flops_of_modules(model: nn.Module, example_inputs: ExampleInputs) -> dict[nn.Module, float]:
    """Count the operations of each module with its submodules, in one run in evaluation.

    Raises:
        ValueError: the model does not run on the inputs.
    """
    args, kwargs = as_arguments(example_inputs)
    found = dict.fromkeys(model.modules(), 0.0)
    with undisturbed(model), ExitStack() as stack, counted_flops() as counter:

        def enter(module: nn.Module, _: Any) -> None:
            found[module] -= counter.get_total_flops()

        def leave(module: nn.Module, *_: Any) -> None:
            found[module] += counter.get_total_flops()

        for module in found:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        try:
            model(*args, **kwargs)
        except Exception as error:  # any exception: this is the model's own code
            raise ValueError(f"the forward pass on example_inputs failed: {first_line(error)}") from error
    return found
