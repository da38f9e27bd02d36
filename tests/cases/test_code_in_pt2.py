"""Code in ``.pt2`` files of strangers is not run, and nothing is called but operators of torch."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.hostile import assert_predict_refuses
from tests.support.pt2 import (
    CONSTANTS,
    MODEL,
    SAMPLES,
    WEIGHTS,
    Entries,
    edit,
    entries_of,
    graph_of,
    tensors_of,
    write,
)
from torchlasso.export import read_pt2, to_pt2
from torchlasso.export.operators import operator_of


class Touch:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def pickled(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(canary), buffer)
    return buffer.getvalue()


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
    assert_predict_refuses(path, capsys, f"error: {path} is damaged or not a .pt2 file of torchlasso: ")
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
    with pytest.raises(ValueError, match=r"model\.pt2 is damaged or not .* may not call"):
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


def test_classes_of_outputs_are_not_looked_up(good: Path, tmp_path: Path) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    context = json.dumps({"default_factory_module": "os", "default_factory_name": "system", "dict_context": ["a"]})
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
    entries = entries_of(good)
    edit(
        entries,
        MODEL,
        lambda model: model["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=json.dumps([1, spec])),
    )
    (found,) = read_pt2(write(tmp_path / "model.pt2", entries))(torch.ones(2, 4))
    assert torch.equal(found, read_pt2(good)(torch.ones(2, 4)))
