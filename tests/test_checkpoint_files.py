"""Checkpoints and files: to the last bit, nothing pickled, whole or not at all, damage noticed."""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import torchlasso as tl
from torchlasso._core.files import read_json, replacing, write_json, write_text
from torchlasso.optim.metrics import known_metrics
from torchlasso.storage import checkpoint

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def bits(value: Any) -> Any:
    """A value as something that is equal only where the types, and every bit, are the same."""
    if isinstance(value, Tensor):
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else torch.empty(0)
        return "tensor", str(value.dtype), tuple(value.shape), tuple(raw.tolist())
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, dict):
        return "dict", [(bits(k), bits(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [bits(item) for item in value]
    return type(value).__name__, value


def back(state: Any, folder: Path) -> Any:
    checkpoint.save_state(folder / "state.safetensors", state)
    return checkpoint.load_state(folder / "state.safetensors")


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    raw = draw(st.binary(min_size=count, max_size=count))
    if not count:
        return torch.zeros(shape, dtype=dtype)
    values = torch.tensor(list(raw), dtype=torch.uint8)
    return (values % 2).bool().reshape(shape) if dtype is torch.bool else values.view(dtype).reshape(shape)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
states = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=4) | st.integers() | st.sampled_from(["tensor", "dict", "tuple"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states)
def test_nested_states_come_back(tmp_path: Path, state: Any) -> None:
    assert bits(back(state, tmp_path)) == bits(state)


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e308, 0.1, math.inf, -math.inf, math.nan])
def test_floats_come_back_to_the_last_bit(tmp_path: Path, value: float) -> None:
    state = {"plain": value, "tensor": torch.tensor([value], dtype=torch.float64)}
    assert bits(back(state, tmp_path)) == bits(state)


def test_tensors_that_share_memory_or_are_not_contiguous_come_back(tmp_path: Path) -> None:
    w = torch.arange(12.0).reshape(3, 4)
    state = {"whole": w, "again": w, "turned": w.T, "row": w[1], "parameter": nn.Parameter(w[:, 2])}
    found = back(state, tmp_path)
    assert bits(found) == bits({**state, "parameter": w[:, 2]})
    assert not found["parameter"].requires_grad


def test_a_state_is_taken_as_it_is_when_it_is_saved(tmp_path: Path) -> None:
    w = torch.ones(3)
    checkpoint.save_state(tmp_path / "s", {"w": w})
    w.zero_()
    assert checkpoint.load_state(tmp_path / "s")["w"].tolist() == [1, 1, 1]


def test_ordered_dictionaries_come_back_as_dictionaries(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = model.state_dict()
    assert isinstance(state, OrderedDict)
    found = back(state, tmp_path)
    assert list(found) == list(state)
    nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).load_state_dict(found)


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", torch.float32, 1j, {"deep": [lambda: 1]}])
def test_objects_that_a_checkpoint_cannot_hold_are_refused(tmp_path: Path, value: Any) -> None:
    checkpoint.save_state(tmp_path / "s", {"old": 1})
    with pytest.raises(TypeError, match="cannot hold"):
        checkpoint.save_state(tmp_path / "s", {"new": value})
    assert checkpoint.load_state(tmp_path / "s") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def trained(base: type[torch.optim.Optimizer], options: dict[str, Any], steps: int) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = tl.proximal(base)(tl.param_groups(model, tl.L1(), lam=0.01), lr=0.01, **options)
    run(model, optimizer, steps)
    return model, optimizer


def run(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        optimizer.zero_grad()
        model(torch.randn(5, 3, generator=generator)).square().mean().backward()
        optimizer.step()


CASES = [(base, {}) for base in known_metrics()]
CASES += [
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    (torch.optim.AdamW, {"weight_decay": 0.1, "averaging": False}),
]


@pytest.mark.parametrize(("base", "options"), CASES, ids=[f"{b.__name__} {o or ''}".strip() for b, o in CASES])
def test_the_state_of_every_optimizer_comes_back(
    tmp_path: Path, base: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model, optimizer = trained(base, options, 4)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    found = back(state, tmp_path)
    assert bits(found) == bits(state)
    other, second = trained(base, options, 1)
    other.load_state_dict(found["model"])
    second.load_state_dict(found["optimizer"])
    run(model, optimizer, 3)
    run(other, second, 3)
    assert bits(other.state_dict()) == bits(model.state_dict())


def test_nothing_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(torch, "save", never)
    state = {"w": torch.ones(2), "n": 3}
    assert bits(back(state, tmp_path)) == bits(state)
    content = (tmp_path / "state.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    assert set(header["__metadata__"]) >= {checkpoint.KEY}
    assert [entry["dtype"] for name, entry in header.items() if name != "__metadata__"] == ["F32"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    state = {"epoch": 3, "lr": 0.125, "w": torch.arange(6.0).reshape(2, 3), "names": ["a", "b"], "b": (0.9, None)}
    checkpoint.save_state(tmp_path / "state.safetensors", state)
    return tmp_path / "state.safetensors"


def outcome(path: Path) -> str:
    """Return the loaded state; only a ValueError that names the file counts as a refusal."""
    try:
        return repr(bits(checkpoint.load_state(path)))
    except ValueError as error:
        message = str(error)
    known = ("damaged", "not a checkpoint", "cannot be read")
    found = path.name in message and any(word in message for word in known)
    return "refused" if found else message


def test_a_file_that_is_cut_short_is_refused_at_every_length(written: Path) -> None:
    content = written.read_bytes()
    for length in range(len(content)):
        written.write_bytes(content[:length])
        assert outcome(written) == "refused", length


def test_a_file_with_more_behind_it_is_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b"\0\0\0\0")
    assert outcome(written) == "refused"


def test_a_flipped_bit_is_noticed_or_changes_nothing(written: Path) -> None:
    whole, content = outcome(written), written.read_bytes()
    assert whole != "refused"
    unnoticed = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        written.write_bytes(changed)
        if outcome(written) not in ("refused", whole):
            unnoticed.append(place)
    assert not unnoticed, f"{len(unnoticed)} of {len(content)}"


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", '{"tensor": "7"}', '{"dict": 1}', '{"dict": [[1]]}', '{"dict": [[[], 1]]}', '{"tensor": []}'],
)
def test_a_state_that_does_not_fit_its_tensors_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"0": torch.zeros(2)}, tmp_path / "s", metadata={checkpoint.KEY: text})
    if text == "null":
        text = '{"dict": null}'
        save_file({"0": torch.zeros(2)}, tmp_path / "s", metadata={checkpoint.KEY: text})
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load_state(tmp_path / "s")


def test_another_file_is_refused_as_a_checkpoint(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "s")
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.load_state(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="nothing"):
        checkpoint.load_state(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        checkpoint.load_state(tmp_path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "checkpoint": lambda path: checkpoint.save_state(path, {"new": torch.ones(1)}),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], error: BaseException
) -> None:
    (tmp_path / "file").write_text("old")

    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(type(error)):
        write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    monkeypatch.undo()
    write(tmp_path / "file")
    assert "new" in (tmp_path / "file").read_bytes().decode("latin-1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_replacing_leaves_the_old_file_when_its_body_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write(b"half")
            assert (tmp_path / "file").read_text() == "old"
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    """A failed write has no file name in its error, and "No space left on device" alone does not name the file."""
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert str(tmp_path / "file") in f"{caught.value.filename} {caught.value}"


def test_json_files(tmp_path: Path) -> None:
    content = {"a": [1, 0.1, None, True], "λ": "é"}
    write_json(tmp_path / "f.json", content)
    assert read_json(tmp_path / "f.json") == content
    assert (tmp_path / "f.json").read_text(encoding="utf-8").endswith("\n")
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "f.json", {"a": bad})
    assert read_json(tmp_path / "f.json") == content
    for damaged in (b"", b'{"a": 1', b"\xff\xfe{}"):
        (tmp_path / "f.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"f\.json is damaged"):
            read_json(tmp_path / "f.json")
