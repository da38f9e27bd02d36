"""Which elements of a model's values depend on its inputs, and which can make a difference to its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from torchlasso.graph.operators import Call, Reach, arguments, name_of, rule_of
from torchlasso.graph.rules.opaque import UNKNOWN
from torchlasso.graph.tracing import Trace


@dataclass(frozen=True)
class Flow:
    """What is known of the elements of one value.

    Attributes:
        value: in a run on the example inputs, in float64.
        depends: whether an element may depend on the inputs; others have this value whatever the inputs are.
        matters: whether another value of an element might change the outputs.
    """

    value: Tensor
    depends: Tensor
    matters: Tensor


class _Sign(torch.autograd.Function):
    """1 where a number is above 0; backwards the same is done to the gradient, so that no number grows or vanishes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).double()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return (grads[0] > 0).double()


sign: Callable[[Tensor], Tensor] = _Sign.apply


@torch.enable_grad()
def flow(trace: Trace) -> dict[fx.Node, Flow]:
    """What is known of the elements of each tensor of a model."""
    reached: dict[fx.Node, Any] = {}
    outputs: list[Tensor] = []
    for node in trace.nodes:
        if node.op == "placeholder":
            reached[node] = _start(trace.tensors[node], given=node not in trace.names and node not in trace.fixed)
        elif node.op == "call_function":
            with trace.precision.running():
                reached[node] = _call(node, reached)
        elif node.op == "output":
            found = [reached[value] for value in node.all_input_nodes]
            outputs = [value.depends for value in found if isinstance(value, Reach)]
    known = {node: value for node, value in reached.items() if isinstance(value, Reach)}
    whole = sum((depends.sum() for depends in outputs), torch.zeros((), dtype=torch.float64))
    grads = torch.autograd.grad(whole, [value.depends for value in known.values()], allow_unused=True)
    return {
        node: Flow(r.value, r.depends.detach() > 0, torch.zeros_like(r.depends).bool() if grad is None else grad > 0)
        for (node, r), grad in zip(known.items(), grads, strict=True)
    }


def _start(value: Any, given: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _reach(value, torch.full(value.shape, float(given), dtype=torch.float64).requires_grad_())


def _reach(value: Tensor, depends: Tensor) -> Reach:
    if not depends.requires_grad:  # made out of nothing
        depends = depends.clone().requires_grad_()
    with torch.no_grad():
        nonzero = ((depends > 0) | (value != 0)).double()
    return Reach(value, depends, nonzero)


def _call(node: fx.Node, reached: dict[fx.Node, Any]) -> Any:
    target: Any = node.target
    with torch.no_grad():
        plain = torch.fx.node.map_arg((node.args, node.kwargs), lambda x: _value(reached[x]))
        value = target(*plain[0], **plain[1])
    args = torch.fx.node.map_arg(arguments(node), lambda x: reached[x])
    call: Call[Reach] = Call(name_of(target).removeprefix("aten."), args, value)
    if not any(isinstance(part, Tensor) for part in (value if call.several else (value,))):
        return value
    depends = (rule_of(target) or UNKNOWN).reach(call)
    if call.several:
        return tuple(_reach(part, sign(some)) for part, some in zip(value, depends, strict=True))
    return _reach(value, sign(depends))


def _value(reach: Any) -> Any:
    if isinstance(reach, Reach):
        return reach.value
    return tuple(_value(part) for part in reach) if isinstance(reach, tuple | list) else reach
