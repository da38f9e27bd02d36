"""Row kernels as C++: a traced function of rows is divided at its sums, and written as one loop over rows.

A group penalty needs the norm of a row before it can shrink the row. Inductor makes a pass over all rows for each such
sum, and so reads the memory again. Here every row has all its passes while the nearest cache holds it: inner loops over
its weights, with the arithmetic on the numbers of a row between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchlasso.optim.fused.inductor import GRAIN
from torchlasso.optim.fused.row_parts import CONSTANTS, EXPRESSIONS, HELPERS, SAME, STEP, SUMS, TYPES, UNSEEN

SAMPLE = (7, 5)  # rows and columns of the tensors with which a function is traced: unlike each other, and not 1


def source_of(graph: GraphModule, dtype: torch.dtype) -> tuple[str, bool]:
    """Return the C++ source of a traced function of rows, and whether it has a bool for each row.

    Args:
        graph: takes tensors of the size ``SAMPLE`` and then one of numbers; it writes into the tensors and returns a
            list. A bool for each row that comes first in it is handed on.
        dtype: of the tensors in memory.

    Raises:
        ValueError: an operator has no translation.
    """
    graph.graph.eliminate_dead_code()
    return _Translation(graph, dtype).source()


class _Translation:
    """The lines of C++ that belong to each place: before all rows, in each loop over a row, and before each of them.

    A sum over a row is known after the loop of its terms, and all that depends on it belongs to later loops. A value of
    a weight is computed as late as it can be, so that the first loops, which wait for the memory, have little to read;
    if further loops need it, they find it in a row of scratch memory.
    """

    def __init__(self, graph: GraphModule, dtype: torch.dtype) -> None:
        nodes = list(graph.graph.nodes)
        self.graph, self.dtype = graph, dtype
        *self.tensors, _ = [node for node in nodes if node.op == "placeholder"]
        self.writes = [node.args for node in nodes if _name(node) == "copy_.default"]
        self.returned = next(node for node in nodes if node.op == "output").args[0]
        self.values = [n for n in nodes if n.op in ("call_function", "get_attr") and _name(n) not in UNSEEN]
        self.source_of: dict[Node, Node] = {}  # of another name of a value
        self.scalars: set[Node] = set()  # values of which a row has one
        self.level: dict[Node, int] = dict.fromkeys(self.tensors, 0)  # the first loop that can use a value
        for node in self.values:
            self._place(node)
        self.loop = self._latest()
        self.lines: dict[tuple[str, int], list[str]] = {}
        self.loaded: dict[tuple[str, int], str] = {}
        self.scratch: list[Node] = []
        self.last: dict[Node, int] = {}  # the last loop that reads a tensor

    def source(self) -> tuple[str, bool]:
        for node in self.values:
            if node not in self.source_of:
                self._write(node)
        for tensor, value in self.writes:
            loop = max(self.loop[self._origin(value)], self.last.get(tensor, 0))
            self._line("store", loop, f"store({self._memory(tensor)} + i, {self._vector(value, loop)}, n);")
        flags = [node for node in self.returned[:1] if _value(node).dtype == torch.bool]
        for node in flags:
            self._line("scalars", self.level[node], f"flags[row] = {self._scalar(node)};")
        return self._assembled(), bool(flags)

    def _place(self, node: Node) -> None:
        """Find the first loop that can use a value."""
        name, given = _name(node), [self._origin(each) for each in node.args if isinstance(each, Node)]
        if name.partition(".")[0] in SAME or (name == "select.int" and node.args[1:] == (1, 0)):
            self.source_of[node] = given[0]
        elif name in CONSTANTS or not given or name == "getitem":
            self.level[node] = 0
            self.scalars.add(node)
        elif name in SUMS:
            self.level[node] = self.level[given[0]] + 1
            self.scalars.add(node)
        else:
            self.level[node] = max(self.level[each] for each in given)
            if self.scalars.issuperset(given):
                self.scalars.add(node)

    def _latest(self) -> dict[Node, int]:
        """Return the loop in which the value of each weight is computed: the first in which it is used."""
        loops: dict[Node, int] = {}
        for node in reversed(self.values):
            if node in self.source_of:
                continue
            loop = self.level[node] - 1 if _name(node) in SUMS else loops.get(node, self.level[node])
            loops[node] = loop
            for each in node.args if _name(node) in SUMS or node not in self.scalars else ():
                if isinstance(each, Node) and self._origin(each) not in self.scalars:
                    origin = self._origin(each)
                    loops[origin] = min(loop, loops.get(origin, loop))
        return {**dict.fromkeys(self.tensors, 0), **loops}

    def _origin(self, node: Node) -> Node:
        while node in self.source_of:
            node = self.source_of[node]
        return node

    def _line(self, place: str, loop: int, line: str) -> None:
        self.lines.setdefault((place, loop), []).append(line)

    def _write(self, node: Node) -> None:
        name, args = _name(node), node.args
        if name == "getitem":
            self._line("scalars", 0, f"const F {node.name} = numbers[{args[1]}];")
        elif name in CONSTANTS or node.op == "get_attr":
            value = getattr(self.graph, str(node.target)).item() if node.op == "get_attr" else CONSTANTS[name](args)
            self._line("scalars", 0, f"const F {node.name} = {_number(value)};")
        elif name in SUMS:
            self._sum(node, *SUMS[name])
        elif node in self.scalars:
            text = self._expression(node).format(*(self._scalar(each) for each in args))
            self._line("scalars", self.level[node], f"const auto {node.name} = {text};")
        else:
            loop = self.loop[node]
            text = self._expression(node).format(*(self._vector(each, loop) for each in args))
            self._line("loop", loop, f"const V {node.name} = {text};")

    def _expression(self, node: Node) -> str:
        name, args = _name(node), node.args
        if name == "pow.Tensor_Scalar" and args[1] == 2:
            return "{0} * {0}"
        if name == "pow.Tensor_Scalar" and args[1] == 3:
            return "{0} * {0} * {0}"
        if name == "clamp.default":
            text = "{0}" if args[1] is None else "at_least({0}, {1})"
            return text if len(args) < 3 or args[2] is None else f"smaller({text}, {{2}})"
        if name not in EXPRESSIONS or node.kwargs.get("alpha", 1) != 1:
            raise ValueError(f"{name} has no translation")
        return EXPRESSIONS[name]

    def _sum(self, node: Node, start: str, term: str, together: str, total: str) -> None:
        given: Any = node.args
        *order, dims = given[1:3] if "norm" in _name(node) else given[1:2]
        if list(dims) not in ([1], [-1]) or order not in ([], [2]):
            raise ValueError(f"{_name(node)} over these dimensions has no translation")
        loop, x = self.loop[node], self._vector(node.args[0], self.loop[node])
        self._line("start", loop, f"V {node.name}_sum({start});")
        joined = together.format(f"{node.name}_sum", f"first({term.format(x)}, {start}, n)")
        self._line("loop", loop, f"{node.name}_sum = {joined};")
        self._line("scalars", loop + 1, f"const F {node.name} = {total.format(f'{node.name}_sum')};")

    def _scalar(self, value: Any) -> str:
        return self._origin(value).name if isinstance(value, Node) else _number(value)

    def _vector(self, value: Any, loop: int) -> str:
        """Return a value in a loop, after a line that loads it if that is needed."""
        origin = self._origin(value) if isinstance(value, Node) else None
        if origin is None or origin in self.scalars:
            is_flag = origin is not None and _value(origin).dtype == torch.bool
            return self._scalar(value) if is_flag else f"V({self._scalar(value)})"
        if origin in self.tensors:
            self.last[origin] = max(loop, self.last.get(origin, 0))
        elif self.loop[origin] == loop:
            return origin.name
        elif origin not in self.scratch:
            self.scratch.append(origin)
            self._line("store", self.loop[origin], f"store({self._memory(origin)} + i, {origin.name}, n);")
        memory = self._memory(origin)
        if (memory, loop) not in self.loaded:
            self.loaded[memory, loop] = f"{memory}_{loop}"
            self._line("load", loop, f"const V {memory}_{loop} = load({memory} + i, n);")
        return self.loaded[memory, loop]

    def _memory(self, node: Node) -> str:
        return f"x{self.tensors.index(node)}" if node in self.tensors else f"s{self.scratch.index(node)}"

    def _assembled(self) -> str:
        k, spare, copied = len(self.tensors), len(self.scratch), self.dtype not in (torch.float32, torch.float64)
        of_view = [f"T* const m{i} = (T*)pointers[view + {i} * views];" for i in range(k)]
        of_view += self.lines.get(("scalars", 0), [])
        of_row = [f"F* const s{i} = memory.get() + {i} * width;" for i in range(spare)]
        written = [i for i, tensor in enumerate(self.tensors) if any(tensor is to for to, _ in self.writes)]
        if copied:  # the arithmetic is in float
            of_row += [f"F* const x{i} = memory.get() + {spare + i} * width;" for i in range(k)]
            of_row += [f"for (int64_t i = 0; i < width; ++i) x{i}[i] = F(m{i}[row * width + i]);" for i in range(k)]
        else:
            of_row += [f"F* const x{i} = m{i} + row * width;" for i in range(k)]
        for loop in range(1 + max(loop for _, loop in self.lines)):
            of_row += self.lines.get(("scalars", loop), []) if loop else []
            inner = [line for place in ("load", "loop", "store") for line in self.lines.get((place, loop), [])]
            of_row += (
                [*self.lines.get(("start", loop), []), "EACH(", *(f"  {line}" for line in inner), ")" + ";"]
                if inner
                else []
            )
        if copied:
            of_row += [f"for (int64_t i = 0; i < width; ++i) m{i}[row * width + i] = T(x{i}[i]);" for i in written]
        parts = {
            "@F@": "double" if self.dtype == torch.float64 else "float",
            "@T@": TYPES[self.dtype],
            "@grain@": str(GRAIN),
            "@rows of memory@": str(spare + (k if copied else 0)),
            "@of a view@": "\n".join(f"    {line}" for line in of_view),
            "@of a row@": "\n".join(f"        {line}" for line in of_row),
        }
        text = HELPERS + STEP
        for mark, part in parts.items():
            text = text.replace(mark, part)
        return text


def _name(node: Node) -> str:
    return node.target.__name__ if callable(node.target) else ""


def _number(value: float) -> str:
    return {float("inf"): "F(INFINITY)", float("-inf"): "F(-INFINITY)"}.get(value, f"F({float(value)!r})")


def _value(node: Node) -> Tensor:
    value: Tensor = node.meta["val"]
    return value
