"""Features on their way through a model: the values that still carry one as it is, and the weights that read it.

Each feature of the inputs has a code. Operators that move elements or treat each by itself pass codes on. Operators
that multiply them by parameters and add up *read* them: the slices of the parameter get the codes of the values that
they multiply, and the result carries none. Whether an element of a result depends on an element that carries a certain
code follows from the derivatives of :meth:`OperatorRule.reach`, one binary digit of the codes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from torchlasso._core.running import repeatable
from torchlasso.graph.codes import CodedValue, Dependence, carried_codes, coded, mapped, varying
from torchlasso.graph.operators import Call, OperatorRule, Products, Reach, arguments, found_in, name_of
from torchlasso.graph.rules.opaque import VARYING
from torchlasso.graph.rules.shapes import Expand, Permute, Reshape
from torchlasso.graph.structure import rule_in
from torchlasso.graph.tracing import Trace, has_varying_size, is_varying_number

ParameterDim = tuple[str, int]  # a parameter and one of its dimensions


class UnreadableError(ValueError):
    """The reason why the weights that read a feature would not separate it from the outputs.

    Attributes:
        code: of a feature that is concerned.
        step: the number of the operator.
    """

    def __init__(self, message: str, code: int, step: int) -> None:
        super().__init__(message)
        self.code, self.step = code, step


@dataclass
class Reading:
    """The slices of parameters that read features.

    Attributes:
        codes: for each parameter and dimension, the code of each slice, 0 for none.
        tables: the parameters whose rows are looked up, by the code of the whole tensor of indices, and their names.
    """

    codes: dict[ParameterDim, Tensor] = field(default_factory=dict)
    tables: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def follow(
    trace: Trace,
    trained: Collection[str],
    codes: Mapping[fx.Node, Tensor],
    words: Collection[int],
    name: Callable[[int], str],
) -> Reading:
    """Follow the features of the inputs through a model until weights read them.

    Args:
        trace: the operators of the model.
        trained: the names of the parameters that training changes.
        codes: for each tensor of the inputs, the code of each element, from 1 on; 0 for elements that may be used in
            any way.
        words: the codes of tensors of indices whose features are the rows that they look up.
        name: a code ↦ the name of the feature.

    Raises:
        UnreadableError: a feature reaches the outputs, or is combined with another, before weights read it.
    """
    return _Following(trace, trained, codes, words, name).forward()


class _Following:
    def __init__(
        self,
        trace: Trace,
        trained: Collection[str],
        codes: Mapping[fx.Node, Tensor],
        words: Collection[int],
        name: Callable[[int], str],
    ) -> None:
        self.trace, self.trained, self.codes, self.words, self.name = trace, trained, codes, words, name
        self.values: dict[fx.Node, Any] = {}
        self.found = Reading()
        self.step = 0
        largest = max((int(some.max()) for some in codes.values() if some.numel()), default=0)
        self.digits = max(1, (largest - 1).bit_length())

    def forward(self) -> Reading:
        last = {x: node for node in self.trace.nodes for x in (node, *node.all_input_nodes)}
        ending: dict[fx.Node, list[fx.Node]] = {}
        for x, node in last.items():
            ending.setdefault(node, []).append(x)
        with repeatable():
            for step, node in enumerate(self.trace.nodes):
                self.step = step
                if node.op == "placeholder":
                    self.values[node] = self._start(node)
                elif node.op == "call_function":
                    self.values[node] = self._call(node)
                elif node.op == "output":
                    self._end(node)
                for x in ending.get(node, ()):
                    self.values.pop(x, None)
        return self.found

    def _start(self, node: fx.Node) -> Any:
        value = self.trace.tensors[node]
        if not isinstance(value, Tensor):
            return value
        name = self.trace.names.get(node)
        if name is None and node not in self.trace.fixed:
            value = self.trace.precision.widened(value)
            return CodedValue(Reach(value, varying(torch.ones(value.shape))), coded(self.codes.get(node)))
        value, origin = value.cpu(), None
        if name is not None and name in self.trained:
            value = value.masked_fill(value == 0, 1.0) if bool((value == 0).any()) else value  # it may not stay zero
            origin = (name, tuple(range(value.dim())))
        return CodedValue(Reach(value, torch.zeros(()).expand(value.shape)), None, origin)

    def _end(self, node: fx.Node) -> None:
        for x in node.all_input_nodes:
            value = self.values[x]
            if isinstance(value, CodedValue) and value.codes is not None:
                code = int(value.codes[value.codes > 0].min())
                last = name_of(x.target).removeprefix("aten.") if x.op == "call_function" else ""
                by = f": {last} passes it on" if last else ""
                raise UnreadableError(
                    f"{self.name(code)} is in the outputs as it is, and no layer reads it{by}",
                    code,
                    len(self.trace.nodes),
                )

    def _call(self, node: fx.Node) -> Any:
        target: Any = node.target
        with torch.no_grad(), self.trace.precision.running():
            plain = torch.fx.node.map_arg((node.args, node.kwargs), lambda x: self._plain(self.values[x]))
            value = target(*plain[0], **plain[1])
        args = torch.fx.node.map_arg(arguments(node), lambda x: self.values[x])
        name, rule = name_of(node.target).removeprefix("aten."), rule_in(node)
        call: Call[Reach] = Call(name, mapped(args, lambda x: x.known), value)
        given = list(found_in(args, (CodedValue,)))
        reach = self._reach_of(node, rule)
        depends = reach(call)
        if depends is None:
            return value
        left = self._read(rule, call, given) if any(x.codes is not None for x in given) else given
        codes = carried_codes(reach, args, call, left, self.digits, lambda: self._refuse(call, left))
        if not call.several:
            return CodedValue(Reach(value, varying(depends)), codes[0], self._origin(rule, call, given))
        return tuple(
            CodedValue(Reach(part, varying(some)), carried)
            for part, some, carried in zip(value, depends, codes, strict=True)
        )

    def _reach_of(self, node: fx.Node, rule: OperatorRule) -> Dependence:
        """Return the rule's own function, and where sizes depend on the inputs one that is as careful as ``flow``."""
        sized = rule is VARYING or (not rule.local and any(map(has_varying_size, node.all_input_nodes)))

        def reach(call: Call[Reach]) -> Any:
            depends = rule.reach(call)
            if depends is None and is_varying_number(node):
                return sum((known.depends.sum() for known in call.tensors), torch.ones(()))
            if depends is None or call.several or not sized:
                return depends
            return depends + torch.as_tensor(call.value != 0)

        return reach

    def _plain(self, value: Any) -> Any:
        if isinstance(value, CodedValue):
            return self.trace.precision.widened(value.known.value)
        return tuple(map(self._plain, value)) if isinstance(value, tuple | list) else value

    def _origin(self, rule: OperatorRule, call: Call[Reach], given: list[CodedValue]) -> Any:
        """Return the origin of a result: that of a parameter whose dimensions are permuted, or put beside new ones."""
        if not given or given[0].origin is None or len(given) > 1:
            return None
        name, dims = given[0].origin
        if isinstance(rule, Permute):
            return name, tuple(dims[place] for place in Permute.order(call, len(dims)))
        before, after = given[0].known.depends.shape, call.value.shape
        if isinstance(rule, Reshape) and [n for n in before if n != 1] == [n for n in after if n != 1]:
            left = iter([dim for dim, n in zip(dims, before, strict=True) if n != 1])
            return name, tuple(None if n == 1 else next(left) for n in after)
        return (name, dims) if isinstance(rule, Expand) and before == after else None

    def _read(self, rule: OperatorRule, call: Call[Reach], given: list[CodedValue]) -> list[CodedValue]:
        """Record the slices of parameters that read features; return the arguments with the features left."""
        left = list(given)
        for each in rule.weighs(call):
            x, origin = given[each.values], given[each.weights].origin
            dim = None if origin is None else origin[1][each.along]
            if x.codes is None or given[each.weights].codes is not None:
                continue
            if origin is None or dim is None:
                if each.adds_up:
                    code = int(x.codes[x.codes > 0].min())
                    message = f"{call.name} multiplies {self.name(code)} by something else than a trained parameter"
                    raise UnreadableError(message, code, self.step)
                continue
            place = (origin[0], dim)
            if each.dim is None and int(x.codes.max()) in self.words:
                table = given[each.weights].known.value
                self.found.tables.setdefault(int(x.codes.max()), {})[place[0]] = table
                left[each.values] = replace(x, codes=None)
                continue
            codes = self._slices(x.codes, each, call, f"{call.name} ({origin[0]})")
            if codes is None:
                continue
            slices = given[each.weights].known.depends.shape[each.along] // each.runs
            self._note(place, codes.repeat_interleave(slices), call.name)
            if each.adds_up:
                left[each.values] = replace(x, codes=None)
        return left

    def _slices(self, codes: Tensor, each: Products, call: Call[Reach], layer: str) -> Tensor | None:
        """Return the code of each run of values, (runs,); None where those that pass values on have several."""
        dim = each.dim or 0
        runs = (codes.flatten() if each.dim is None else codes.movedim(dim, 0)).reshape(each.runs, -1)
        largest = runs.amax(dim=1)
        mixed = (runs != 0) & (runs != largest[:, None])
        if not mixed.any():
            return largest
        if not each.adds_up:
            return None
        row = int(mixed.any(dim=1).nonzero()[0])
        one, two = int(largest[row]), int(runs[row][mixed[row]][0])
        raise self._shared(layer, one, two)

    def _shared(self, layer: str, one: int, two: int) -> UnreadableError:
        first, second = sorted((one, two))
        message = f"{layer} reads {self.name(first)} and {self.name(second)} with the same weights"
        return UnreadableError(message, one, self.step)

    def _note(self, place: ParameterDim, codes: Tensor, layer: str) -> None:
        name = place[0]
        others = [dim for other, dim in self.found.codes if other == name and dim != place[1]]
        if others and bool(codes.any()):
            message = f"{layer} reads features along two dimensions of {name}"
            raise UnreadableError(message, int(codes.max()), self.step)
        before = self.found.codes.get(place, torch.zeros_like(codes))
        apart = (before != 0) & (codes != 0) & (before != codes)
        if apart.any():
            raise self._shared(f"{layer} ({name})", int(codes[apart][0]), int(before[apart][0]))
        if codes.any():
            self.found.codes[place] = torch.maximum(before, codes)

    def _refuse(self, call: Call[Reach], left: list[CodedValue]) -> NoReturn:
        present = sorted({int(code) for x in left if x.codes is not None for code in torch.unique(x.codes) if code})
        both = " and ".join(map(self.name, present)) if len(present) == 2 else f"{len(present)} features"
        message = f"{call.name} combines {both} before trained weights read each of them"
        raise UnreadableError(message, present[0], self.step)
