"""The elements of a model's values that depend on its inputs, and the elements that matter to its outputs.

Only signs are followed, in float32, and every value is dropped after its last reader. The records of values take little
memory: bools and constants, with one element along dimensions where all elements are equal. Parameters never depend on
the inputs, so they need no records, and they are widened only inside the operators that read them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from torchlasso._core.memory import trim
from torchlasso._core.running import repeatable
from torchlasso.graph.operators import Call, Reach, arguments, name_of, rule_of
from torchlasso.graph.precision import Precision
from torchlasso.graph.rules.contractions import Affine
from torchlasso.graph.rules.opaque import VARYING
from torchlasso.graph.structure import rule_in
from torchlasso.graph.tracing import Trace, has_varying_size, is_varying_number

FIXED, GIVEN = torch.tensor([0, 1], dtype=torch.float32).unbind()


@dataclass(frozen=True)
class Flow:
    """The elements of one value.

    Attributes:
        kept: values in a run on the example inputs. Parameters, values that an operator other than a layer adds up, and
            results of such operators have all elements; other values have the elements that do not depend on the
            inputs, and 0 elsewhere.
        depends: whether an element may depend on the inputs; other elements have this value for all inputs.
        matters: whether a different value of an element that depends on the inputs might change the outputs.
        precision: the precision of the run.
    """

    kept: Tensor
    depends: Tensor
    matters: Tensor
    precision: Precision

    @property
    def value(self) -> Tensor:
        """Return the kept value in the precision of the run."""
        return self.precision.widened(self.kept)  # type: ignore[no-any-return]


class _Sign(torch.autograd.Function):
    """The sign of non-negative numbers; the backward pass takes the sign of gradients, too, so none overflows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, note: Callable[[Tensor], None]) -> Tensor:
        ctx.note = note
        return _positive(x).float().expand(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        matters = _positive(grads[0])
        ctx.note(matters.expand(grads[0].shape))
        return matters.float().expand(grads[0].shape), None


_sign: Callable[[Tensor, Callable[[Tensor], None]], Tensor] = _Sign.apply


class _Run:
    """One run of a trace.

    Attributes:
        reached: the records of all values with readers to come.
        kept, depends, matters: see :class:`Flow`.
        leaves: the values at which dependence begins.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.reached: dict[fx.Node, Any] = {}
        self.kept: dict[fx.Node, Tensor] = {}
        self.depends: dict[fx.Node, Tensor] = {}
        self.matters: dict[fx.Node, Tensor] = {}
        self.leaves: list[Tensor] = []
        self._added = set(_added_up(trace))

    def forward(self) -> list[Tensor]:
        """Run all operators; return the elements of the outputs that depend on the inputs."""
        last = {x: node for node in self.trace.nodes for x in (node, *node.all_input_nodes)}
        ending: dict[fx.Node, list[fx.Node]] = {}
        for x, node in last.items():
            ending.setdefault(node, []).append(x)
        outputs: list[Tensor] = []
        for node in self.trace.nodes:
            if node.op == "placeholder":
                self.reached[node] = self._start(node)
            elif node.op == "call_function":
                self.reached[node] = self._call(node)
            elif node.op == "output":
                found = [self.reached[value] for value in node.all_input_nodes]
                outputs = [value.depends for value in found if isinstance(value, Reach)]
            for x in ending.get(node, ()):
                self._keep(x, self.reached.pop(x, None))
        return outputs

    def _start(self, node: fx.Node) -> Any:
        value = self.trace.tensors[node]
        if not isinstance(value, Tensor):
            return value
        given = node not in self.trace.names and node not in self.trace.fixed
        return self._reach(node, value, _all(GIVEN if given else FIXED, value))

    def _reach(self, node: fx.Node, value: Any, depends: Tensor) -> Reach:
        if not depends.requires_grad:  # created without inputs
            if not depends.any():
                return Reach(value, _all(FIXED, depends))
            depends = depends.float().requires_grad_()
            self.leaves.append(depends)

        def note(matters: Tensor) -> None:
            self.matters[node] = matters

        return Reach(value, _sign(depends, note))

    def _call(self, node: fx.Node) -> Any:
        target: Any = node.target
        with torch.no_grad(), self.trace.precision.running():
            plain = torch.fx.node.map_arg((node.args, node.kwargs), lambda x: self._value(self.reached[x]))
            value = target(*plain[0], **plain[1])
        args = torch.fx.node.map_arg(arguments(node), lambda x: self.reached[x])
        call: Call[Reach] = Call(name_of(target).removeprefix("aten."), args, value)
        rule = rule_in(node)
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            depends = rule.reach(call)
            if depends is None and is_varying_number(node):  # such as the number of selected rows
                depends = sum((known.depends.sum() for known in call.tensors), torch.ones(()))
            elif rule is VARYING or (not rule.local and any(map(has_varying_size, node.all_input_nodes))):
                # another number of constants gives other results, except perhaps for zeros
                depends = depends if call.several or depends is None else depends + torch.as_tensor(value != 0)
        if depends is None:
            return value
        if call.several:
            return tuple(self._reach(node, part, some) for part, some in zip(value, depends, strict=True))
        return self._reach(node, value, depends)

    def _value(self, reach: Any) -> Any:
        if isinstance(reach, Reach):
            return self.trace.precision.widened(reach.value)
        return tuple(self._value(part) for part in reach) if isinstance(reach, tuple | list) else reach

    def _keep(self, node: fx.Node, known: Any) -> None:
        if not isinstance(known, Reach) or not isinstance(known.value, Tensor):
            return
        whole = node in self._added or not known.value.is_floating_point() or node in self.trace.tensors
        depends = _positive(known.depends.detach()).expand(known.depends.shape)
        self.depends[node] = depends
        self.kept[node] = known.value if whole else _lean(_constant(known.value, depends))


def flow(trace: Trace) -> dict[fx.Node, Flow]:
    """Follow the elements of each tensor of a model."""
    run = _Run(trace)
    with torch.enable_grad(), repeatable():  # a model may draw random numbers in evaluation, too
        outputs = [depends for depends in run.forward() if depends.requires_grad]
        if outputs:
            torch.autograd.grad([depends.sum() for depends in outputs], run.leaves, allow_unused=True)
    found = {
        node: Flow(kept, run.depends[node], run.matters.get(node, _all(FIXED.bool(), kept)), trace.precision)
        for node, kept in run.kept.items()
    }
    del run, outputs
    trim()  # the values took much memory, and most of it is free now
    return found


def _added_up(trace: Trace) -> list[fx.Node]:
    """Return the values that an operator other than a layer adds up, and its results."""
    found = []
    for node in trace.nodes:
        rule = rule_of(node.target) if node.op == "call_function" else None
        if rule is not None and rule.adds_up and not isinstance(rule, Affine):
            found += [node, *node.all_input_nodes]
    return found


def unexpanded(x: Tensor) -> Tensor:
    """Return a tensor with one element along dimensions that it is expanded along."""
    for place, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        if size > 1 and stride == 0:
            x = x.narrow(place, 0, 1)
    return x


def _all(value: Tensor, like: Tensor) -> Tensor:
    """Expand one number to a shape, in the memory of one element."""
    return value.expand(like.shape)


def _lean(x: Tensor) -> Tensor:
    """Copy a tensor with the memory of one element along dimensions where all elements are equal."""
    lean = unexpanded(x)
    for place, size in enumerate(lean.shape):
        first = lean.narrow(place, 0, 1) if size > 1 else lean
        if size > 1 and torch.equal(lean.narrow(place, 1, 1), first) and bool((lean == first).all()):
            lean = first
    return lean.clone(memory_format=torch.contiguous_format).expand(x.shape)


def _positive(x: Tensor) -> Tensor:
    """Return where a tensor is above 0, with size 1 along dimensions where all elements agree."""
    return unexpanded(_lean(unexpanded(x) > 0))


def _constant(value: Tensor, depends: Tensor) -> Tensor:
    """Return the elements of a value that do not depend on the inputs, and 0 elsewhere."""
    all_do = bool(unexpanded(depends).all())
    return _all(torch.zeros((), dtype=value.dtype), value) if all_do else value.masked_fill(depends, 0)


def _pack(x: Tensor) -> tuple[Tensor, torch.dtype]:
    """Pack a factor for the gradient; it matters only whether it is zero."""
    return (x != 0 if x.is_floating_point() else x), x.dtype


def _unpack(packed: tuple[Tensor, torch.dtype]) -> Tensor:
    return packed[0].to(packed[1])
