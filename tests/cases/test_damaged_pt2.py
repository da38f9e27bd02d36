"""Damaged ``.pt2`` files, and ones that are put together wrongly: refused in one line, or the model as it was."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.hostile import damaged_copies
from tests.support.pt2 import (
    CONSTANTS,
    MODEL,
    SAMPLES,
    SUM,
    WEIGHTS,
    edit,
    entries_of,
    graph_of,
    tensors_of,
    write,
)
from torchlasso.export import read_pt2, to_pt2


def first_node(model: Any) -> Any:
    return graph_of(model)["nodes"][0]


def call(model: Any) -> Any:
    return model["graph_module"]["module_call_graph"][0]["signature"]


NAMED = json.dumps([1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}])
CHANGES: dict[str, Callable[[Any], Any]] = {
    "a trace of source": lambda m: first_node(m)["metadata"].update(stack_trace="x"),
    "classes of modules": lambda m: first_node(m)["metadata"].update(nn_module_stack="a,b,os.system"),
    "an operator as an argument": lambda m: first_node(m)["inputs"][0].update(arg={"as_operator": "torch.load"}),
    "an object as an argument": lambda m: first_node(m)["inputs"][0].update(
        arg={"as_custom_obj": {"name": "a", "class_fqn": "b"}}
    ),
    "objects": lambda m: graph_of(m)["custom_obj_values"].update(a={"name": "a", "class_fqn": "b"}),
    "a number that is text": lambda m: first_node(m)["inputs"][0].update(arg={"as_int": "1"}),
    "two kinds together": lambda m: first_node(m)["inputs"][0].update(arg={"as_int": 1, "as_bool": True}),
    "an unknown kind": lambda m: first_node(m)["inputs"][0].update(arg={"as_code": "1"}),
    "an output that changes a buffer": lambda m: m["graph_module"]["signature"]["output_specs"].append(
        {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "b"}}
    ),
    "an output without a kind": lambda m: m["graph_module"]["signature"].update(output_specs=[{}]),
    "a parameter that is not there": lambda m: m["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
        parameter_name="other"
    ),
    "no graph": lambda m: m.pop("graph_module"),
    "a graph that is a list": lambda m: m["graph_module"].update(graph=[]),
    "nodes that are text": lambda m: graph_of(m).update(nodes=["a"]),
    "another version": lambda m: m["schema_version"].update(major=9),
    "arguments that are no JSON": lambda m: call(m).update(in_spec="["),
    "arguments of another version": lambda m: call(m).update(in_spec="[2, null]"),
    "no arguments": lambda m: call(m).update(in_spec=None),
    "two calls": lambda m: m["graph_module"]["module_call_graph"].append({"fqn": "", "signature": call(m)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_program_that_is_not_one(good: Path, tmp_path: Path, change: str) -> None:
    entries = entries_of(good)
    edit(entries, MODEL, CHANGES[change])
    with pytest.raises(ValueError, match=r"model\.pt2 is damaged or not a \.pt2 file of torchlasso: .") as raised:
        read_pt2(write(tmp_path / "model.pt2", entries))
    assert "\n" not in str(raised.value)


NAMES = [
    "archive/data/aotinductor/model/x.so",
    "archive/../evil",
    "/etc/passwd",
    "archive/data/weights/../weight_0",
    "archive/data/weights/weight_x",
    "archive/models/other.json",
    "archive/extra/other.txt",
    "other/archive_format",
    "archive\\models\\model.json",
    "archive/data/constants/custom_obj_0",
    "archive/",
    "archive/code/x.py",
]


@pytest.mark.parametrize("name", NAMES)
def test_another_entry(good: Path, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.iterdir())
    path = write(tmp_path / "model.pt2", entries_of(good) | {name: b"\x7fELF"})
    with pytest.raises(ValueError, match="it holds"):
        read_pt2(path)
    assert set(tmp_path.iterdir()) - before == {path}


def test_an_entry_twice(good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt2", entries_of(good))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(MODEL, b"{}")
    with pytest.raises(ValueError, match=r"models/model.json' twice"):
        read_pt2(path)


def test_bombs(good: Path, tmp_path: Path) -> None:
    """Compressed entries are refused, and so is nested or huge JSON."""
    entries = entries_of(good)
    with zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (entries | {"archive/data/weights/weight_0": bytes(1 << 24)}).items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="is compressed"):
        read_pt2(tmp_path / "model.pt2")
    depth = 4 * sys.getrecursionlimit()
    for name in (MODEL, WEIGHTS, "archive/extra/torchlasso.json"):
        deep = entries | {name: b"[" * depth + b"]" * depth}
        with pytest.raises(ValueError, match="damaged or no"):
            read_pt2(write(tmp_path / "model.pt2", deep))
    sizes = {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 1}]}
    edit(entries, WEIGHTS, lambda config: config["config"]["layer.weight"]["tensor_meta"].update(sizes))
    with pytest.raises(ValueError, match="damaged or no"):
        read_pt2(write(tmp_path / "model.pt2", entries))


@pytest.mark.parametrize("text", ["1" * 50_000 + "!", "a" * 50_000, "A" * 50_000, "a=!" * 50_000, "'" + "e" * 50_000])
def test_a_long_expression_takes_no_time(good: Path, tmp_path: Path, text: str) -> None:
    entries = entries_of(good)
    size = {"as_expr": {"expr_str": text, "hint": None}}
    edit(entries, MODEL, lambda model: tensors_of(model)["x"]["sizes"].__setitem__(0, size))
    with pytest.raises(ValueError, match="not an expression of sizes"):
        read_pt2(write(tmp_path / "model.pt2", entries))


def test_sizes_do_not_grow_without_end(good: Path, tmp_path: Path) -> None:
    """Numbers of Python have as many digits as there is memory for."""
    square = {"name": "", "arg": {"as_sym_int": {"as_name": "n"}}, "kind": 1}
    node = {"target": "_operator.mul", "inputs": [square, square], "metadata": {}, "is_hop_single_tensor_return": None,
            "outputs": [{"as_sym_int": {"as_name": "n"}}], "name": "n"}  # fmt: skip
    start = node | {"target": "_operator.add"}
    start["inputs"] = [{"name": "", "arg": {"as_int": 10}, "kind": 1}] * 2
    entries = entries_of(good)
    edit(entries, MODEL, lambda model: graph_of(model).update(nodes=[start, *[node] * 60, *graph_of(model)["nodes"]]))
    program = read_pt2(write(tmp_path / "model.pt2", entries))
    with pytest.raises(ValueError, match="64 bits"):
        program(torch.ones(2, 4))


def test_a_program_that_asks_for_too_much_memory(good: Path, tmp_path: Path) -> None:
    entries = entries_of(good)
    edit(entries, MODEL, lambda m: [n["inputs"][1].update(arg={"as_ints": [1 << 50]}) for n in made_of_sizes(m)])
    program = read_pt2(write(tmp_path / "model.pt2", entries))
    with pytest.raises(ValueError, match="cannot be run on these inputs") as raised:
        program(torch.ones(2, 4))
    assert "\n" not in str(raised.value)


def made_of_sizes(model: Any) -> Any:
    return [node for node in graph_of(model)["nodes"] if ".new_ones." in node["target"]]


@pytest.mark.parametrize("seed", range(4))
def test_damage(good: Path, tmp_path: Path, seed: int) -> None:
    """Cut off, or with bytes that were changed: refused, or the model as it was."""
    x, path = torch.randn(3, 4), tmp_path / "model.pt2"
    expected = read_pt2(good)(x)
    for damaged in damaged_copies(good.read_bytes(), seed):
        path.write_bytes(damaged)
        with suppress(ValueError):
            assert torch.equal(read_pt2(path)(x), expected)


@pytest.mark.parametrize("name", ["data/weights/weight_0", "extra/torchlasso.json", "models/model.json"])
def test_an_archive_of_whole_entries_from_two_models(good: Path, tmp_path: Path, name: str) -> None:
    """Each entry has the right checksum, but one of them is from another model."""
    other = tmp_path / "other.pt2"
    torch.manual_seed(1)
    to_pt2(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4), other, metadata={"classes": ["b"]})
    with zipfile.ZipFile(good) as archive:
        held = {SUM: archive.read(SUM)}
    path, entry = tmp_path / "model.pt2", f"archive/{name}"
    write(path, entries_of(good) | held)
    assert read_pt2(path).metadata == {"classes": ["a"]}  # put together as it was
    write(path, entries_of(good) | held | {entry: entries_of(other)[entry]})
    with pytest.raises(ValueError, match="its checksum is wrong"):
        read_pt2(path)


VALUES = [None, True, 0, -1, 1 << 40, 1 << 70, 1.5, "x", "", [], {}, [[]], {"as_int": 1}, {"as_name": "x"}, "NaN"]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield all places in JSON: what holds an entry, and its key."""
    for key, entry in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(entry, dict | list):
            yield from places(entry)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, CONSTANTS])
def test_any_value_anywhere(good: Path, tmp_path: Path, name: str) -> None:
    """One is another, or is missing: refused, or a model that runs or says why not."""
    rng, entries = random.Random(name), entries_of(good)
    for trial in range(100):
        content = json.loads(entries[name])
        holder, key = rng.choice(list(places(content)))
        if trial % 5 == 0:
            del holder[key]
        else:
            holder[key] = rng.choice(VALUES)
        path = write(tmp_path / "model.pt2", entries | {name: json.dumps(content).encode()})
        with suppress(ValueError):
            read_pt2(path)(torch.ones(3, 4))


def test_the_good_one_is_read(good: Path) -> None:
    assert read_pt2(good).metadata == {"classes": ["a"]}
    with zipfile.ZipFile(good) as archive:
        assert archive.read(SAMPLES) == b""
        assert b"stack_trace" not in archive.read(MODEL)
