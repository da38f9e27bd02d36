"""Programs of ``torch.export``, run from their JSON without evaluating, importing or unpickling anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchlasso.export.graphs import CONSTANTS, DTYPES, Graph
from torchlasso.export.trees import Tree

VERSION = 8  # the version of the format
SYMBOL = re.compile(r"Symbol\('(\w+)'.*?\)|(\w+)")  # a size that is free
# Programs contain expressions of intermediate sizes. They are not needed to run a program, but other readers evaluate
# them.
TOKENS = re.compile(
    r"[A-Z][A-Za-z]{,30}\(|'(?:[a-z]{1,9}\d+|[\d.e+-]+)'|[a-z]{1,20}=\w+|[a-z]{,9}\d+|true|false|[-+*/%<>=, ()]"
)
STATE = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


class Program:
    """A model as a list of operators, called like the original: on the CPU, without gradients.

    Args:
        content: the program in the JSON of ``torch.export``.
        tensors: parameters, buffers and constants by their names.

    Raises:
        ValueError: it calls an operator that a program may not call, holds code, or changes its own state.
    """

    def __init__(self, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if (version := content["schema_version"]["major"]) != VERSION:
            raise ValueError(f"its format has version {version!r}; expected {VERSION}")
        module = content["graph_module"]
        if content.get("guards_code") or module["metadata"]:
            raise ValueError("it holds code or metadata, which to_pt2 leaves out")
        _check_expressions(content)
        self._graph, self._ranges = Graph(module["graph"]), content["range_constraints"]
        self._given: list[tuple[str | None, Any]] = []  # the inputs of a call: a name, or a constant
        self._state: dict[str, Tensor] = {}
        for name, spec in zip(self._graph.inputs, module["signature"]["input_specs"], strict=True):
            ((kind, entry),) = spec.items()
            if kind in STATE:
                self._state[name] = tensors[entry[STATE[kind]]]
            elif kind == "constant_input":
                ((type_, value),) = entry["value"].items()
                self._given.append((None, CONSTANTS[type_](value)))
            elif kind == "user_input":
                self._given.append((name, None))
            else:
                raise ValueError(f"it takes a {kind!r}")
        for spec in module["signature"]["output_specs"]:
            ((kind, _),) = spec.items()
            if kind != "user_output":
                raise ValueError(f"it has a {kind!r}: it changes its own state")
        (call,) = (entry["signature"] for entry in module["module_call_graph"] if entry["fqn"] == "")
        self._taken, self._returned = (Tree.read(call[name]) for name in ("in_spec", "out_spec"))

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs.

        Raises:
            ValueError: the inputs do not fit the inputs that the program was exported with.
        """
        values: dict[str, Any] = dict(self._state)
        sizes: dict[str, int] = {}
        for (name, constant), value in zip(self._given, self._taken.leaves((args, kwargs)), strict=True):
            if name is not None:
                values[name] = self._checked(name, value, sizes)
            elif value != constant:
                raise ValueError(f"it was exported with {constant!r} as a fixed input; got {value!r}")
        return self._returned.built(iter(self._graph.run(values)))

    def _checked(self, name: str, value: Any, sizes: dict[str, int]) -> Any:
        """Check the type and the sizes of an input, and return it on the CPU.

        Args:
            name: the name of the input.
            value: the input.
            sizes: the sizes of free dimensions found so far; new ones are added.
        """
        wanted = self._graph.tensors.get(name)
        if wanted is None:  # a number
            return value
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} is a tensor; got a {type(value).__name__}")
        if value.dtype != DTYPES[wanted["dtype"]]:
            raise ValueError(f"{name!r} is of {DTYPES[wanted['dtype']]}; got {value.dtype}")
        if value.dim() != len(wanted["sizes"]):
            raise ValueError(f"{name!r} has {len(wanted['sizes'])} dimensions; got the shape {tuple(value.shape)}")
        for dim, (size, found) in enumerate(zip(wanted["sizes"], value.shape, strict=True)):
            if "as_int" in size:
                fits = found == size["as_int"]
            else:
                symbol = SYMBOL.fullmatch(size["as_expr"]["expr_str"])
                free = symbol[1] or symbol[2] if symbol else ""
                limits = self._ranges.get(free) or {}
                least, most = limits.get("min_val"), limits.get("max_val")
                fits = sizes.setdefault(free, found) == found if free else True
                fits = fits and (least is None or least <= found) and (most is None or found <= most)
            if not fits:
                raise ValueError(f"{name!r} has another size in dimension {dim}; got the shape {tuple(value.shape)}")
        return value.detach().cpu()


def _check_expressions(content: Any) -> None:
    waiting = [content]
    while waiting:
        match waiting.pop():
            case {"expr_str": str(text)} if TOKENS.sub("", text):
                raise ValueError(f"{text[:40]!r} is not an expression of sizes")
            case dict(entries):
                waiting.extend(entries.values())
            case list(items):
                waiting.extend(items)
