"""Hostile and damaged ``.onnx`` files: refused in one line, without a word of the libraries; and models in bfloat16."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests.support.hostile import assert_predict_refuses, damaged_copies, flip
from torchlasso.export import read_onnx, to_onnx

pytestmark = pytest.mark.usefixtures("one_registry")

WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2)


def model(**more: Any) -> ModelProto:
    """x·W for a batch of rows of four numbers; ``more`` goes into the graph."""
    x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])
    node = helper.make_node("MatMul", ["input", "w"], ["output"])
    graph = helper.make_graph([node], "graph", [x], [y], [numpy_helper.from_array(WEIGHT, "w")], **more)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write(path: Path, content: ModelProto) -> Path:
    path.write_bytes(content.SerializeToString())
    return path


def test_a_file_of_others_is_read(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    found = read_onnx(write(tmp_path / "m.onnx", model()))(x)
    torch.testing.assert_close(found, x @ torch.from_numpy(WEIGHT))


def in_another_file(m: ModelProto, where: str) -> None:
    w = m.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", "32")):
        w.external_data.add(key=key, value=value)


def beside(m: ModelProto) -> None:
    in_another_file(m, "secret")


def above(m: ModelProto) -> None:
    in_another_file(m, "../secret")


def absolute(m: ModelProto) -> None:
    in_another_file(m, "/etc/hostname")


def in_an_attribute(m: ModelProto) -> None:
    """Of a node in a branch of a node."""
    tensor = numpy_helper.from_array(WEIGHT, "hidden")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    body = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "body", [], [])
    m.graph.node.append(helper.make_node("If", ["input"], [], then_branch=body, else_branch=body))


def in_a_function(m: ModelProto) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "hidden")
    tensor.external_data.add(key="location", value="secret")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    m.functions.append(helper.make_function("mine", "F", [], ["c"], [node], [helper.make_opsetid("", 20)]))


def of_a_runtime(m: ModelProto) -> None:
    """An operator of onnxruntime that names a file."""
    m.graph.node.append(helper.make_node("EPContext", [], ["e"], domain="com.microsoft", ep_cache_context="secret"))
    m.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def of_someone(m: ModelProto) -> None:
    m.graph.node.append(helper.make_node("Run", ["input"], ["r"], domain="mine"))
    m.opset_import.append(helper.make_opsetid("mine", 1))


def no_graph(m: ModelProto) -> None:
    m.ClearField("graph")


def unknown_operator(m: ModelProto) -> None:
    m.graph.node[0].op_type = "System"


def sizes_that_the_data_are_not(m: ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [1 << 31, 1 << 31]


def negative_sizes(m: ModelProto) -> None:
    m.graph.initializer[0].dims[:] = [-4, -2]


def a_huge_constant(m: ModelProto) -> None:
    """Petabytes, which are made while the file is opened."""
    m.graph.initializer.append(numpy_helper.from_array(np.array([1 << 50], dtype=np.int64), "shape"))
    m.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
    m.graph.output.append(helper.make_tensor_value_info("huge", TensorProto.FLOAT, [None]))


def a_circle(m: ModelProto) -> None:
    m.graph.node[0].input[0] = "output"


def metadata(text: str) -> Callable[[ModelProto], None]:
    def change(m: ModelProto) -> None:
        helper.set_model_props(m, {"torchlasso": text})

    return change


CHANGES = {
    each.__name__: each
    for each in (beside, above, absolute, in_an_attribute, in_a_function, of_a_runtime, of_someone, no_graph,
                 unknown_operator, sizes_that_the_data_are_not, negative_sizes, a_huge_constant, a_circle)
} | {
    "metadata that are no JSON": metadata("{"),
    "metadata that are a list": metadata("[1]"),
    "metadata that are nested": metadata("[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str) -> None:
    """Print at most one line to standard error, including the output of C libraries."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "secret").write_bytes(bytes(32))
    content = model()
    CHANGES[change](content)
    path = write(folder / "m.onnx", content)
    assert_predict_refuses(path, capfd, f"error: {path}")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1000, b"no model", b"PK\x03\x04", b"\x08\x0a\x12\x04ORTM" + bytes(99)]
)
def test_other_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx is damaged or not an ONNX file of torchlasso: ."):
        read_onnx(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    loaded = read_onnx(write(tmp_path / "m.onnx", model()))
    for args, kwargs in (
        ((torch.ones(2, 5),), {}),
        ((torch.ones(2, 4).double(),), {}),
        ((torch.ones(2, 4).bfloat16(),), {}),
        ((torch.ones(2, 4), torch.ones(1)), {}),
        ((), {"other": torch.ones(2, 4)}),
    ):
        with pytest.raises(ValueError, match=r"cannot be run on these inputs: .") as raised:
            loaded(*args, **kwargs)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", range(4))
def test_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    """A changed file is refused or read, since ONNX has no checksum; there is no other error and no output."""
    path = tmp_path / "m.onnx"
    for damaged in damaged_copies(model().SerializeToString(), seed):
        path.write_bytes(damaged)
        with suppress(ValueError):
            read_onnx(path)(torch.ones(3, 4))
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_of_an_exported_file_is_noticed(tmp_path: Path) -> None:
    """Refused, or without a meaning: never another model."""
    torch.manual_seed(0)
    path, x, rng = tmp_path / "m.onnx", torch.randn(3, 4), random.Random(0)
    to_onnx(nn.Linear(4, 2), torch.randn(2, 4), path, metadata={"classes": ["a", "b"]})
    content, expected = path.read_bytes(), read_onnx(path)(x)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        flip(damaged, rng)
        path.write_bytes(damaged)
        try:
            loaded = read_onnx(path)
        except ValueError:
            refused += 1
        else:
            assert torch.equal(loaded(x), expected)
    assert refused > 80


class Shifted(nn.Module):
    """Takes a dictionary last, and has nested outputs, an input among them."""

    def forward(self, x: Tensor, d: dict[str, Tensor]) -> dict[str, Any]:
        return {"sum": [x + d["a"], {"product": x * d["b"]}], "same": (x, None)}


@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_dictionary_as_the_last_input(tmp_path: Path, by_keyword: bool) -> None:
    def given(rows: int) -> dict[str, Any]:
        return {"x": torch.randn(rows, 3), "d": {"a": torch.randn(rows, 3), "b": torch.randn(rows, 3)}}

    example = given(2)
    to_onnx(Shifted(), example if by_keyword else tuple(example.values()), tmp_path / "m.onnx")
    loaded, inputs = read_onnx(tmp_path / "m.onnx"), given(5)
    swapped = {"d": dict(reversed(inputs["d"].items())), "x": inputs["x"]}  # the order of keywords says nothing
    found = loaded(**swapped) if by_keyword else loaded(*inputs.values())
    x, a, b = inputs["x"], inputs["d"]["a"], inputs["d"]["b"]
    for ours, theirs in zip((x + a, x * b, x), found, strict=True):
        torch.testing.assert_close(theirs, ours)


def test_half_precision(tmp_path: Path) -> None:
    """float16 is right; bfloat16 is right or refused in a line that says what to do, and nothing is written."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    x = torch.randn(3, 64)
    to_onnx(net.half(), x.half(), tmp_path / "half.onnx")
    torch.testing.assert_close(read_onnx(tmp_path / "half.onnx")(x.half()), net(x.half()), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match=r"convert the model and its inputs with \.float\(\)") as raised:
        to_onnx(net.bfloat16(), x.bfloat16(), tmp_path / "m.onnx")
    assert "damaged" not in str(raised.value)
    assert not (tmp_path / "m.onnx").exists()


def test_an_output_that_is_not_a_tensor(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x + 1, x.shape[0]

    with pytest.raises(ValueError, match="an output that is not a tensor"):
        to_onnx(Counting(), torch.randn(2, 3), tmp_path / "m.onnx")


def test_nothing_of_this_machine_is_in_a_file(tmp_path: Path) -> None:
    to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m.onnx", metadata={"a": 1})
    content = (tmp_path / "m.onnx").read_bytes()
    assert b".py" not in content
    assert [entry.key for entry in onnx.load(tmp_path / "m.onnx").metadata_props] == ["torchlasso", "torchlasso.crc32"]
    assert read_onnx(tmp_path / "m.onnx").metadata == {"a": 1}
