"""Exported models: another runtime computes the same outputs from the file as the model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso import models
from torchlasso.export import Exported, read_onnx, read_pt2, to_onnx, to_pt2

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_registry")]

FORMATS = {"onnx": (to_onnx, read_onnx), "pt2": (to_pt2, read_pt2)}
both = pytest.mark.parametrize(("to", "read"), FORMATS.values(), ids=FORMATS)


class TwoInputs(nn.Module):
    """Takes two arguments, one of them whole numbers, and has two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.numbers = nn.Embedding(10, 6), nn.Linear(3, 6)

    def forward(self, words: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.words(words).mean(1) + self.numbers(numbers)
        return hidden, hidden.relu().sum(1)


class Cells(nn.Module):
    """Runs cells over a sequence in a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm, self.linear = nn.GRUCell(4, 5), nn.LSTMCell(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = second = None
        for i in range(x.shape[1]):
            first = self.gru(x[:, i], first)
            second = self.lstm(first, second)
        assert second is not None
        out: Tensor = self.linear(second[0])
        return out


class Recurrent(nn.Module):
    """A recurrent layer with a linear layer on all its states."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.linear = nn.RNN(4, 8, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.layer(x)[0])
        return out


def file_of(to: Callable[..., None], folder: Path) -> Path:
    return folder / ("model.onnx" if to is to_onnx else "model.pt2")


@both
def test_a_network_with_batch_norm_and_dropout_in_training(
    to: Callable[..., None], read: Callable[[Path], Exported], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3)
    )
    model(torch.randn(8, 1, 6, 6))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = file_of(to, tmp_path)
    to(model, torch.randn(1, 1, 6, 6), file, metadata={"classes": ["a", "b", "ü"]})
    assert model.training  # as it was
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    loaded = read(file)
    assert loaded.metadata == {"classes": ["a", "b", "ü"]}
    for rows in (1, 2, 7):
        x = torch.randn(rows, 1, 6, 6)
        torch.testing.assert_close(loaded(x), model.eval()(x))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # nothing half-written is left


@both
def test_several_inputs_and_outputs(to: Callable[..., None], read: Callable[[Path], Exported], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = TwoInputs(), (torch.randint(10, (2, 4)), torch.randn(2, 3))
    file = file_of(to, tmp_path)
    to(model, x, file)
    more = (torch.randint(10, (5, 4)), torch.randn(5, 3))
    for ours, theirs in zip(model(*more), read(file)(*more), strict=True):
        torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("cls", [Recurrent, Cells])
def test_steps_that_compute_what_an_output_is_named_after(cls: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = cls().eval(), torch.randn(3, 3, 4)
    to_onnx(model, x, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for rows in (1, 5):
        x = torch.randn(rows, 3, 4)
        (found,) = session.run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach())


def test_other_readers_read_the_files(tmp_path: Path) -> None:
    """The two files, without this library."""
    model, x = models.build("lenet-5", (1, 12, 12), 10).eval(), torch.randn(3, 1, 12, 12)
    small = tl.compact(model, x)
    to_onnx(small, x, tmp_path / "m.onnx", metadata={"size": 12})
    to_pt2(small, x, tmp_path / "m.pt2", metadata={"size": 12})
    graph = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(graph)
    assert [json.loads(entry.value) for entry in graph.metadata_props if entry.key == "torchlasso"] == [{"size": 12}]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-5)
    beside = {"torchlasso.json": ""}
    with (tmp_path / "m.pt2").open("rb") as file:
        program = torch.export.load(file, extra_files=beside)
    assert json.loads(beside["torchlasso.json"]) == {"size": 12}
    torch.testing.assert_close(program.module()(x), model(x))


@both
def test_a_model_that_cannot_be_exported_leaves_the_old_file(
    to: Callable[..., None], read: Callable[[Path], Exported], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Depends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() if x.sum() > 0 else x

    file = file_of(to, tmp_path)
    file.write_text("before")
    with pytest.raises(
        ValueError, match=r"cannot be exported: .* depends on the values of its inputs .*line \d+"
    ) as raised:
        to(Depends(), torch.randn(2, 3), file)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_model_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = nn.Linear(3, 2)
    monkeypatch.setattr("torchlasso.export.pt2_files.Program", lambda *content: wrong)
    with pytest.raises(RuntimeError, match="same outputs"):
        to_pt2(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 truncated"])
@both
def test_damaged_files(
    to: Callable[..., None], read: Callable[[Path], Exported], tmp_path: Path, content: bytes
) -> None:
    file = file_of(to, tmp_path)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.(onnx|pt2) is damaged"):
        read(file)


def test_a_truncated_program(tmp_path: Path) -> None:
    to_pt2(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m.pt2")
    content = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "m.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"m\.pt2 is damaged"):
        read_pt2(tmp_path / "m.pt2")


def test_another_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"m\.pt2 is damaged or not a \.pt2 file"):
        read_pt2(tmp_path / "m.pt2")


@both
def test_bad_arguments(to: Callable[..., None], read: Callable[[Path], Exported], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere.onnx")
    with pytest.raises(ValueError, match="at least one row"):
        to(nn.Linear(3, 2), torch.randn(0, 3), file_of(to, tmp_path))


def test_the_ending_of_a_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        to_pt2(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m.onnx")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("torchlasso._core.extras.importlib.import_module", missing)
    for call in (lambda: to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m.onnx"), lambda: read_onnx("m.onnx")):
        with pytest.raises(ValueError, match=r"pip install 'torchlasso\[export\]'"):
            call()
