"""Hostile and damaged ``.pt2`` files: refused in one line, and no code of theirs is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchlasso.cli.main import main
from torchlasso.export import read_pt2, to_pt2
from torchlasso.export.operators import operator_of

Entries = dict[str, bytes]
MODEL, CONSTANTS = "archive/models/model.json", "archive/data/constants/model_constants_config.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
SAMPLES, SUM = "archive/data/sample_inputs/model.pt", "archive/extra/torchlasso.crc32"


class Net(nn.Module):
    """Has parameters, a constant, and a size that depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(4, 3), torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) + self.shift).relu() + x.new_ones(2 * x.shape[0] + 1).sum()


class Touch:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    to_pt2(Net(), torch.randn(2, 4), path, metadata={"classes": ["a"]})
    return path


def entries_of(path: Path) -> Entries:
    """Return all entries but the checksum: a stranger would leave it out."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != SUM}


def write(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def pickled(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(canary), buffer)
    return buffer.getvalue()


def edit(entries: Entries, name: str, change: Callable[[Any], Any]) -> None:
    """Change an entry that is JSON, in place."""
    content = json.loads(entries[name])
    change(content)
    entries[name] = json.dumps(content).encode()


def payload(name: str) -> dict[str, Any]:
    return {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}


# Each makes a file that torch.export.load runs code of


def weights_in_pickle(entries: Entries, canary: Path) -> None:
    edit(entries, WEIGHTS, lambda config: config["config"]["layer.weight"].update(use_pickle=True))
    entries["archive/data/weights/weight_0"] = pickled(canary)


def a_constant_in_pickle(entries: Entries, canary: Path) -> None:
    edit(entries, CONSTANTS, lambda config: config["config"]["shift"].update(use_pickle=True))
    entries["archive/data/constants/tensor_0"] = pickled(canary)


def an_opaque_constant(entries: Entries, canary: Path) -> None:
    edit(entries, CONSTANTS, lambda config: config["config"].update(other=payload("opaque_obj_0")))
    entries["archive/data/constants/opaque_obj_0"] = pickle.dumps(Touch(canary))


def weights_of_an_old_archive(entries: Entries, canary: Path) -> None:
    entries["archive/data/weights/model.pt"] = pickled(canary)


def constants_of_an_old_archive(entries: Entries, canary: Path) -> None:
    entries["archive/data/constants/model.pt"] = pickled(canary)


def sample_inputs(entries: Entries, canary: Path) -> None:
    entries[SAMPLES] = pickled(canary)


def a_size(entries: Entries, canary: Path) -> None:
    text = {"as_expr": {"expr_str": f"__import__('os').mkdir({str(canary)!r})", "hint": None}}
    edit(entries, MODEL, lambda model: tensors_of(model)["x"]["sizes"].__setitem__(0, text))


def a_number(entries: Entries, canary: Path) -> None:
    values = {"mul": {"as_expr": {"expr_str": f"__import__('os').mkdir({str(canary)!r})", "hint": None}}}
    edit(entries, MODEL, lambda model: graph_of(model)["sym_int_values"].update(values))


def guards(entries: Entries, canary: Path) -> None:
    edit(entries, MODEL, lambda model: model.update(guards_code=[f"__import__('os').mkdir({str(canary)!r})"]))


def graph_of(model: Any) -> Any:
    return model["graph_module"]["graph"]


def tensors_of(model: Any) -> Any:
    return graph_of(model)["tensor_values"]


RUN_BY_TORCH = [
    weights_in_pickle,
    a_constant_in_pickle,
    an_opaque_constant,
    weights_of_an_old_archive,
    constants_of_an_old_archive,
    sample_inputs,
    a_size,
    a_number,
]
TORCH_REFUSES = [guards]


@pytest.mark.parametrize("attack", RUN_BY_TORCH + TORCH_REFUSES)
def test_code_in_the_file_is_not_run(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: Callable[[Entries, Path], None]
) -> None:
    canary, entries = tmp_path / "canary", entries_of(good)
    attack(entries, canary)
    path = write(tmp_path / "model.pt2", entries)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(path), "--data", "digits"])
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {path} is damaged or no .pt2 file of torchlasso: ")
    assert len(err) <= 400
    assert not canary.exists()
    if attack in RUN_BY_TORCH:  # so that the attack is one
        with suppress(Exception):
            torch.export.load(path)
        assert canary.exists()


TARGETS = [
    "torch.load", "torch.hub.load", "torch.ops.load_library", "torch.ops.aten.from_file.default", "os.system",
    "torch.ops.aten.save.default", "torch.ops.aten.resize_.default", "torch.ops.aten.set_.source_Tensor", "eval",
    "torch.ops.aten.add.out", "torch.ops.aten.add.__class__", "torch.ops.aten.add._schema", "torch.ops.aten.add",
    "torch.ops.aten", "torch.ops.aten.add.Tensor.__call__", "torch.ops.aten..Tensor", "torch.ops.aten.relu__.default",
    "torch.ops.mine.open.default", "torch.ops.higher_order.run_with_rng_state", "torch.ops.prim.device.default",
    "torch.ops.higher_order.triton_kernel_wrapper_functional", "_operator.attrgetter", "_operator.methodcaller",
    "_operator.getitem", "_operator.__loader__", "math.__spec__", "builtins.getattr", "torch.sym_fresh_size",
    "#aoti", "", "torch.serialization.load", "torch.ops.aten.__class__.__base__", "xtorch.ops.aten.add.Tensor",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_a_call_of_something_else(good: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(ValueError, match="may not call"):
        operator_of(target)
    entries = entries_of(good)
    edit(entries, MODEL, lambda model: graph_of(model)["nodes"][0].update(target=target))
    with pytest.raises(ValueError, match=r"model\.pt2 is damaged or no .* may not call"):
        read_pt2(write(tmp_path / "model.pt2", entries))


def test_a_call_within_the_body_of_another(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))

    path = tmp_path / "model.pt2"
    to_pt2(Branches(), torch.ones(2, 4), path)
    entries = entries_of(path)
    assert b"aten.cos.default" in entries[MODEL]
    entries[MODEL] = entries[MODEL].replace(b"torch.ops.aten.cos.default", b"torch.load")
    with pytest.raises(ValueError, match=r"may not call 'torch\.load'"):
        read_pt2(write(path, entries))


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
    "two kinds at once": lambda m: first_node(m)["inputs"][0].update(arg={"as_int": 1, "as_bool": True}),
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
    with pytest.raises(ValueError, match=r"model\.pt2 is damaged or no \.pt2 file of torchlasso: .") as raised:
        read_pt2(write(tmp_path / "model.pt2", entries))
    assert "\n" not in str(raised.value)


def test_classes_of_outputs_are_not_looked_up(good: Path, tmp_path: Path) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    context = json.dumps({"default_factory_module": "os", "default_factory_name": "system", "dict_context": ["a"]})
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
    entries = entries_of(good)
    edit(entries, MODEL, lambda model: call(model).update(out_spec=json.dumps([1, spec])))
    (found,) = read_pt2(write(tmp_path / "model.pt2", entries))(torch.ones(2, 4))
    assert torch.equal(found, read_pt2(good)(torch.ones(2, 4)))


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
    rng, content, x = random.Random(seed), good.read_bytes(), torch.randn(3, 4)
    expected, path = read_pt2(good)(x), tmp_path / "model.pt2"
    for trial in range(25):
        damaged = bytearray(content)
        if trial % 5 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        for _ in range(rng.choice([1, 1, 3]) if damaged else 0):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with suppress(ValueError):
            assert torch.equal(read_pt2(path)(x), expected)


@pytest.mark.parametrize("name", ["data/weights/weight_0", "extra/torchlasso.json", "models/model.json"])
def test_an_archive_of_whole_entries_from_two_models(good: Path, tmp_path: Path, name: str) -> None:
    """Each entry holds, but one of them is of another model: not what was written."""
    other = tmp_path / "other.pt2"
    torch.manual_seed(1)
    to_pt2(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4), other, metadata={"classes": ["b"]})
    with zipfile.ZipFile(good) as archive:
        held = {SUM: archive.read(SUM)}
    path, entry = tmp_path / "model.pt2", f"archive/{name}"
    write(path, entries_of(good) | held)
    assert read_pt2(path).metadata == {"classes": ["a"]}  # put together as it was
    write(path, entries_of(good) | held | {entry: entries_of(other)[entry]})
    with pytest.raises(ValueError, match="its checksum does not hold"):
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
