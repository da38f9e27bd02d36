"""The graph of a program: a list of calls of operators by name, run without evaluating any text as code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from torchlasso.export.operators import BODIES, operator_of

Values = dict[str, Any]  # the values in a run, by their names in the graph
Getter = Callable[[Values], Any]

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    34: torch.uint32,
    35: torch.uint64,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
LISTS = {
    "as_bools": "as_bool",
    "as_floats": "as_float",
    "as_ints": "as_int",
    "as_nested_tensors": "as_tensors",
    "as_optional_tensors": "as_optional_tensor",
    "as_strings": "as_string",
    "as_sym_bools": "as_sym_bool",
    "as_sym_floats": "as_sym_float",
    "as_sym_ints": "as_sym_int",
    "as_tensors": "as_tensor",
}
EITHER = ("as_optional_tensor", "as_sym_bool", "as_sym_float", "as_sym_int")  # a name or a constant


def _plain(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"it has {value!r} in the place of a value of type {kind.__name__}")
        return value

    return read


CONSTANTS: Mapping[str, Callable[[Any], Any]] = {
    "as_bool": _plain(bool),
    "as_complex": lambda value: complex(float(value["real"]), float(value["imag"])),
    "as_device": lambda value: torch.device("cpu"),  # whatever device it was exported on
    "as_float": float,  # infinities and NaN are text
    "as_int": _plain(int),
    "as_layout": {7: torch.strided}.__getitem__,
    "as_memory_format": MEMORY_FORMATS.__getitem__,
    "as_none": lambda value: None,
    "as_scalar_type": DTYPES.__getitem__,
    "as_string": _plain(str),
}


class GraphCall(NamedTuple):
    """A call: the function, its arguments, the names of its results, and names that no later call reads."""

    function: Callable[..., Any]
    args: list[Getter]
    kwargs: dict[str, Getter]
    results: Any
    done: list[str]


class Graph:
    """A list of calls.

    Attributes:
        inputs: the names of its inputs; None for a constant.
        tensors: type and sizes of the tensors by name, as JSON.

    Raises:
        ValueError: it calls a function that a program may not call, or holds an object that is not a tensor.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if content["custom_obj_values"]:
            raise ValueError("it holds objects that are not tensors")
        self.inputs = [_name(argument) for argument in content["inputs"]]
        self.tensors: Mapping[str, Any] = content["tensor_values"]
        self._single = content["is_single_tensor_return"]
        used: set[str] = set()
        self._outputs = [_argument(argument, used) for argument in content["outputs"]]
        steps = []
        for node in reversed(content["nodes"]):
            later, used = used, set()
            step = _step(node, used)
            written = set(_flat(step.results))
            steps.append(step._replace(done=[name for name in {*used, *written} if name not in later]))
            used |= later
        self._steps = steps[::-1]

    def run(self, values: Values) -> list[Any]:
        """Make the calls and return the outputs; ``values`` holds the inputs by name, and is changed."""
        for step in self._steps:
            result = step.function(
                *(get(values) for get in step.args), **{name: get(values) for name, get in step.kwargs.items()}
            )
            _store(values, step.results, result)
            for name in step.done:
                values.pop(name, None)
        return [get(values) for get in self._outputs]

    def __call__(self, *args: Any) -> Any:
        """Run as the body of a call."""
        pairs = zip(self.inputs, args, strict=True)
        outputs = self.run({name: value for name, value in pairs if name is not None})
        return outputs[0] if self._single else tuple(outputs)


def _step(node: Mapping[str, Any], used: set[str]) -> GraphCall:
    if node["metadata"]:
        raise ValueError("its calls have metadata, which to_pt2 leaves out")
    args, kwargs = [], {}
    for entry in node["inputs"]:
        get = _argument(entry["arg"], used)
        if entry["kind"] == 2:  # by keyword
            kwargs[_plain(str)(entry["name"])] = get
        else:
            args.append(get)
    results = [_name(output) for output in node["outputs"]]
    if len(results) == 1 and not (node["target"] in BODIES and node["is_hop_single_tensor_return"] is False):
        (results,) = results
    return GraphCall(operator_of(_plain(str)(node["target"])), args, kwargs, results or None, [])


def _argument(argument: Mapping[str, Any], used: set[str]) -> Getter:
    ((kind, value),) = argument.items()
    return _getter(kind, value, used)


def _getter(kind: str, value: Any, used: set[str]) -> Getter:
    if kind in LISTS:
        parts = [_getter(LISTS[kind], item, used) for item in value]
        return lambda values: [get(values) for get in parts]
    if kind in EITHER:
        return _argument(value, used)
    if kind in ("as_tensor", "as_name"):
        name = _plain(str)(value["name"] if kind == "as_tensor" else value)
        used.add(name)
        return lambda values: values[name]
    constant = Graph(value["graph"]) if kind == "as_graph" else CONSTANTS[kind](value)
    return lambda values: constant


def _name(argument: Mapping[str, Any]) -> Any:
    """Return the name of a value in an argument, nested like the value; None for a constant."""
    ((kind, value),) = argument.items()
    if kind in LISTS:
        return [_name({LISTS[kind]: item}) for item in value]
    if kind in EITHER:
        return _name(value)
    if kind in ("as_tensor", "as_name"):
        return _plain(str)(value["name"] if kind == "as_tensor" else value)
    return None


def _flat(names: Any) -> Iterable[str]:
    if isinstance(names, list):
        for each in names:
            yield from _flat(each)
    elif names is not None:
        yield names


def _store(values: Values, names: Any, result: Any) -> None:
    if isinstance(names, list):
        for name, part in zip(names, result, strict=True):
            _store(values, name, part)
    elif names is not None:
        values[names] = result
