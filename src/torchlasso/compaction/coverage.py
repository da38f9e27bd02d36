"""The parts of a model that the example inputs do not exercise: missing arguments, and parameters that are not read."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from torchlasso._core.running import ExampleInputs, as_arguments
from torchlasso.graph.tracing import Trace


def missing_arguments(model: nn.Module, example_inputs: ExampleInputs) -> tuple[str, ...]:
    """Return the names of the optional arguments of a forward pass that are not given, or given as None."""
    args, kwargs = as_arguments(example_inputs)
    try:
        given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the forward pass is written in C, or its signature is wrong
        return ()
    parameters = inspect.signature(model.forward).parameters.values()
    optional = [p.name for p in parameters if p.default is not inspect.Parameter.empty]
    return tuple(name for name in optional if given.get(name) is None)


def read_parameters(model: nn.Module, trace: Trace) -> set[Tensor]:
    """Return the parameters that an operator reads."""
    read = {name for node, name in trace.names.items() if node.users}
    return {p for name, p in model.named_parameters(remove_duplicate=False) if name in read}


def unread_parameters(model: nn.Module, trace: Trace) -> tuple[str, ...]:
    """Return the parameters that no operator reads; if none of a module's is read, the module's path instead."""
    read = read_parameters(model, trace)
    idle = {path for path, module in model.named_modules() if _has_none_of(module, read)}
    found: dict[str, None] = {}
    for name, p in model.named_parameters():
        if p not in read:
            parts = name.split(".")
            around = (".".join(parts[:count]) for count in range(1, len(parts)))
            found[next((path for path in around if path in idle), name)] = None
    return tuple(found)


def _has_none_of(module: nn.Module, read: set[Tensor]) -> bool:
    parameters = set(module.parameters())
    return bool(parameters) and parameters.isdisjoint(read)
