"""Anything that cannot be saved or loaded raises a clear error, and no file and no model changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.storage import container


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def with_buffer(w: torch.Tensor, name: str = "w") -> nn.Module:
    model = nn.Module()
    model.register_buffer(name, w)
    return model


def values(model: nn.Module) -> list[list[float]]:
    return [w.reshape(-1).tolist() for w in model.state_dict().values()]


MISFITS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lacks": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
        "m.safetensors does not fit the model: it lacks '1.weight', '1.bias'",
    ),
    "has more": (lambda: nn.Sequential(nn.Linear(4, 3, bias=False)), "the model lacks '0.bias'"),
    "shape": (
        lambda: nn.Sequential(nn.Linear(5, 3)),
        "'0.weight' is float32 of shape (3, 4), and float32 of shape (3, 5) in the model",
    ),
    "dtype": (
        lambda: nn.Sequential(nn.Linear(4, 3)).bfloat16(),
        "'0.weight' is float32 of shape (3, 4), and bfloat16 of shape (3, 4) in the model; '0.bias' is",
    ),
    "many": (
        lambda: nn.Sequential(*(nn.Linear(4, 3) for _ in range(9))),
        "it lacks '1.weight', '1.bias', '2.weight', and 13 more",
    ),
}


@pytest.mark.parametrize(("make", "message"), MISFITS.values(), ids=MISFITS)
def test_misfits_are_named_and_nothing_changes(path: Path, make: Callable[[], nn.Module], message: str) -> None:
    tl.save(nn.Sequential(nn.Linear(4, 3)), path)
    model = make()
    before = values(model)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        tl.load(path, into=model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert values(model) == before


class WithState(nn.Module):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


UNSUITABLE: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no module": (lambda: {"w": torch.ones(1)}, TypeError, "{} must be a torch.nn.Module; got dict"),
    "lazy": (lambda: nn.LazyLinear(3), ValueError, "'weight' of {} has no values yet"),
    "other state": (WithState, TypeError, "'_extra_state' of {}.state_dict() is not a tensor, but a dict"),
    "sparse layout": (
        lambda: with_buffer(torch.eye(3).to_sparse()),
        TypeError,
        "'w' of {} is not a plain tensor: its layout is torch.sparse_coo, its dtype torch.float32",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_models_that_cannot_be_stored(path: Path, make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        tl.save(make(), path)
    assert str(caught.value) == message.format("model")
    assert not path.exists()
    tl.save(nn.ReLU(), path)
    with pytest.raises(kind) as caught:
        tl.load(path, into=make())
    assert str(caught.value) == message.format("into")


def test_values_are_needed_to_save(path: Path) -> None:
    with pytest.raises(ValueError, match="'weight' of model has no values yet"):
        tl.save(nn.Linear(2, 3, device="meta"), path)
    assert not path.exists()


def test_names_and_dtypes_that_cannot_be_stored(path: Path) -> None:
    for name, w in (("w", torch.ones(2, dtype=torch.complex128)), ("__metadata__", torch.ones(2))):
        with pytest.raises(TypeError, match=rf"cannot hold {w.dtype} under the name '{name}'"):
            tl.save(with_buffer(w, name), path)
    assert not path.exists()


def test_metadata_of_ones_own(path: Path) -> None:
    with pytest.raises(ValueError, match=r"metadata must not have the key 'torchlasso\.storage'"):
        tl.save(nn.ReLU(), path, metadata={container.KEY: ""})
    with pytest.raises(TypeError, match=r"metadata must be a dictionary of texts; got \{'a': 1\}"):
        tl.save(nn.ReLU(), path, metadata={"a": 1})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=missing.name):
            tl.load(missing, into=nn.ReLU())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tl.save(nn.ReLU(), tmp_path / "nowhere" / "m")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tl.save(nn.ReLU(), path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=rf"No space left on device.*{path.name}"):
        tl.save(nn.Linear(2, 2), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_values_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"values must be None, torch\.bfloat16 or torch\.float16; got torch\.int8"):
        tl.save(nn.Linear(2, 1), path, values=torch.int8)


def test_two_tensors_do_not_fit_into_one(path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 2), "head": nn.Linear(2, 5, bias=False)})
    tl.save(model, path)
    model.head.weight = model.embed.weight
    before = values(model)
    with pytest.raises(ValueError, match=r"where 'embed\.weight' and 'head\.weight' are one tensor"):
        tl.load(path, into=model)
    assert values(model) == before


def test_sharded_models_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchlasso.storage.state.any_sharded", lambda tensors: True)
    with pytest.raises(ValueError, match="model is sharded over several processes"):
        tl.save(nn.Linear(2, 1), path)
