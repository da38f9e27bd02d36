"""Bad files in folders of the Hugging Face Hub: one line that names the file and the mistake."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

pytest.importorskip("huggingface_hub")

from torchlasso.integrations.hub import SparseHubMixin


class Net(nn.Module, SparseHubMixin):
    def __init__(
        self,
        width: int,
        act: Literal["relu", "tanh"] = "relu",
        *,
        bias: bool = True,
        sizes: Sequence[int] = (3,),
        rate: float = float("inf"),
        options: dict[str, int] | None = None,
        kernel: int = (3, 3),  # type: ignore[assignment]  # a wrong annotation, as models have them
        count: int = None,  # type: ignore[assignment]  # noqa: RUF013
    ):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, width, bias=bias)


@dataclass
class Sizes:
    width: int
    depth: int = 1


class Configured(nn.Module, SparseHubMixin):
    def __init__(self, config: Sizes):
        super().__init__()
        self.layer = nn.Linear(4, config.width)


class Open(Net):
    def __init__(self, width: int, **others: Any):
        super().__init__(width)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Net(5).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Callable[[Any], Path]:
    """Change the configuration in the folder."""

    def write(content: Any) -> Path:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / "config.json").write_bytes(raw)
        return folder

    return write


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "config.json is damaged: it is not JSON"),
        (b"", "config.json is damaged: it is not JSON"),
        (b"\xff\xfe", "config.json is damaged: it is not UTF-8"),
        (b"[" * 100_000, "config.json is damaged: its JSON is nested too deeply"),
        ([5], "config.json is damaged: it must have values by name, and is [5]"),
        (None, "config.json is damaged: it must have values by name, and is None"),
        ({"act": "relu"}, "config.json lacks width, which Net needs: give from_pretrained(..., width=...)"),
        ({"width": "5"}, "config.json: width must be int for Net; got '5'"),
        ({"width": 5.0}, "width must be int"),
        ({"width": True}, "width must be int"),
        ({"width": None}, "width must be int"),
        ({"width": 5, "bias": "false"}, "bias must be bool for Net; got 'false'"),
        ({"width": 5, "bias": 0}, "bias must be bool"),
        ({"width": 5, "act": "gelu"}, "act must be Literal['relu', 'tanh'] for Net; got 'gelu'"),
        ({"width": 5, "sizes": 3}, "sizes must be collections.abc.Sequence[int]"),
        ({"width": 5, "sizes": "33"}, "sizes must be"),
        ({"width": 5, "sizes": [3, "a"]}, "sizes must be"),
        ({"width": 5, "options": [1]}, "options must be dict[str, int] | None"),
        ({"width": -5}, "Net(width=-5) cannot be made, with the arguments of config.json and of the call: Trying to"),
        ({"width": 6}, "torchlasso.safetensors does not fit the model: 'layer.weight'"),
    ],
)
def test_a_bad_configuration_is_one_line(config: Callable[[Any], Path], content: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        Net.from_pretrained(config(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"width": 5, "sizes": [], "rate": 1, "options": {"a": 1}, "act": "tanh"},
        {"width": 5, "kernel": [1, 1], "count": None, "options": None},
        {"width": 5, "kernel": 1, "count": 2},
    ],
)
def test_what_a_class_takes_is_read(config: Callable[[Any], Path], content: Any) -> None:
    found = Net.from_pretrained(config(content))
    assert torch.equal(found.layer.weight, Net(5).layer.weight)


def test_what_was_saved_is_read(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["rate"] == float("inf")
    assert Net.from_pretrained(folder).layer.out_features == 5
    assert Net.from_pretrained(str(folder)).layer.out_features == 5


def test_arguments_of_the_call_count(config: Callable[[Any], Path]) -> None:
    folder = config({"width": "5"})
    assert Net.from_pretrained(folder, width=5).layer.out_features == 5
    (folder / "config.json").unlink()
    assert Net.from_pretrained(folder, width=5).layer.out_features == 5
    with pytest.raises(ValueError, match=r"^there is no config\.json with width, which Net needs: give"):
        Net.from_pretrained(folder)


def test_an_unknown_argument_is_left_out_aloud(config: Callable[[Any], Path]) -> None:
    folder = config({"width_": 7, "width": 5})
    with pytest.warns(UserWarning, match=r"config\.json is read without.*'width_'; did you mean 'width'\?") as caught:
        assert Net.from_pretrained(folder).layer.out_features == 5
    assert [Path(each.filename).name for each in caught] == [Path(__file__).name]
    assert Open.from_pretrained(folder).layer.out_features == 5  # it takes any


def test_a_dataclass_has_all_its_fields(tmp_path: Path) -> None:
    Configured(Sizes(3)).save_pretrained(tmp_path)
    assert Configured.from_pretrained(tmp_path).layer.out_features == 3
    (tmp_path / "config.json").write_text('{"depth": 2}')
    with pytest.raises(ValueError, match=r"config\.json lacks width, which .*Sizes needs$"):
        Configured.from_pretrained(tmp_path)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "torchlasso.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"^there is no .*torchlasso\.safetensors.*there is model\.safetensors"):
        Net.from_pretrained(folder)
    for name in ("", folder / "none", folder / "config.json"):
        with pytest.raises(
            FileNotFoundError, match=r"^there is no folder '.*', nor a repository of this name: [^\n]*$"
        ):
            Net.from_pretrained(name, width=5)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder 'runs/none', nor a repository[^\n]*$"):
        Net.from_pretrained("runs/none", width=5, local_files_only=True, cache_dir=folder)
