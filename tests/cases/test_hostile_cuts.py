"""A file's record of removed sizes is data: only existing sizes of a module become smaller, or nothing changes."""

from __future__ import annotations

import enum
import json
import logging
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.storage import container, read


class Colour(enum.Enum):
    """A member is one for the whole program."""

    RED = 8


class Rich(nn.Module):
    """A model with attributes of many kinds; its layer has 8 outputs."""

    shared = 8

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 2)
        self.several, self.table, self.config = (8, 3), {"a": {"b": 8}, 8: 8}, SimpleNamespace(width=8, none=None)
        self.flag, self.half, self.text = True, 8.0, "8"
        self.colour, self.logger, self.function, self.kind = Colour.RED, logging.getLogger("rich"), sealed, Rich
        self.logger.setLevel(8)

    @property
    def width(self) -> int:
        return 8

    @width.setter
    def width(self, value: int) -> None:
        raise AssertionError("code ran")


def state(model: nn.Module) -> Any:
    kept = [
        (path, name, str(value))
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in ("_parameters", "_modules")
    ]
    tensors = {name: (id(w), w.tolist()) for name, w in model.named_parameters()}
    return kept, tensors, Colour.RED.value, vars(Colour.RED)["_value_"], model.logger.level, Rich.shared


def sealed(path: Path, cut: Any, outputs: int = 4) -> Path:
    """A file of a layer with fewer outputs, with a right checksum and this record of removed units."""
    small = nn.ModuleDict({"fc": nn.Linear(6, 9), "out": nn.Linear(9, 2)})
    small.fc.weight, small.fc.bias = (nn.Parameter(w[:outputs].detach()) for w in small.fc.parameters())
    small.out.weight = nn.Parameter(small.out.weight[:, :outputs].detach())
    tl.save(small, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    layout = json.loads(header["__metadata__"][container.KEY])
    layout = {container.KEY: 1, "crc32": "0" * 8, "sparse": {}, "tied": {}, "cut": cut} | {"tied": layout["tied"]}
    header["__metadata__"][container.KEY] = json.dumps(layout, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = struct.pack("<Q", len(text)) + text + content[8 + length :]
    path.write_bytes(whole.replace(b"00000000", f"{zlib.crc32(whole):08x}".encode(), 1))
    return path


TENSORS = {"fc.weight": [8, 6], "fc.bias": [8], "out.weight": [2, 8]}
NUMBERS = [["fc", ["out_features"], 8, 4], ["out", ["in_features"], 8, 4]]
INNOCENT = [
    ["", ["several", 0], 8, 4],
    ["", ["table", "a", "b"], 8, 4],
    ["", ["table", 8], 8, 4],
    ["", ["config", "width"], 8, 4],
    ["", ["config", "none"], None, 4],
]


def test_the_same_file_without_a_lie_is_loaded(tmp_path: Path):
    model = Rich()
    tl.load(sealed(tmp_path / "m", {"tensors": TENSORS, "numbers": NUMBERS + INNOCENT}), into=model)
    assert (model.fc.out_features, model.several, model.config.width, model.config.none) == (4, (4, 3), 4, 4)
    assert model.table == {"a": {"b": 4}, 8: 4}
    assert model.fc(torch.ones(6)).shape == (4,)


LIES: dict[str, list[Any]] = {
    "dunder": ["", ["__class__", "shared"], 8, 4],
    "dictionary": ["", ["__dict__", "several", 0], 8, 4],
    "class": ["", ["kind", "shared"], 8, 4],
    "class attribute": ["", ["shared"], 8, 4],
    "property": ["", ["width"], 8, 4],
    "method": ["", ["forward"], 8, 4],
    "function": ["", ["function", "__defaults__", 0], 4, 2],
    "flag": ["", ["flag"], 1, 0],
    "training": ["fc", ["training"], 1, 0],
    "fraction": ["", ["half"], 8, 4],
    "text": ["", ["text"], 8, 4],
    "member of an enumeration": ["", ["colour", "_value_"], 8, 4],
    "logger": ["", ["logger", "level"], 8, 4],
    "bookkeeping": ["", ["_modules", "fc", "out_features"], 8, 4],
    "tensor": ["fc", ["weight"], 8, 4],
    "missing": ["fc", ["nothing"], 8, 4],
    "no module": ["nothing.at.all", ["out_features"], 8, 4],
    "larger": ["out", ["out_features"], 2, 4],
    "zero": ["fc", ["out_features"], 8, 0],
    "negative": ["fc", ["out_features"], 8, -4],
    "true as a size": ["fc", ["out_features"], 8, True],
    "huge": ["", ["config", "none"], None, 10**30],
    "another before": ["fc", ["out_features"], 9, 4],
    "none of a module": ["fc", ["bias"], None, 4],
    "beyond the end": ["", ["several", 2], 8, 4],
    "from behind": ["", ["several", -2], 8, 4],
    "true": ["", ["several", True], 3, 2],
    "deep": ["", ["config"] * 500, 8, 4],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_only_numbers_of_the_model_become_smaller(tmp_path: Path, lie: list[Any]):
    model = Rich()
    before = state(model)
    path = sealed(tmp_path / "m", {"tensors": TENSORS, "numbers": [*NUMBERS, *INNOCENT, lie]})
    with pytest.raises(ValueError, match=r"does not fit the model|a recorded size is") as caught:
        tl.load(path, into=model)
    assert state(model) == before
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


SHAPES: dict[str, tuple[Any, int]] = {
    "of another size": ({"fc.weight": [9, 6]}, 4),
    "of another rank": ({"fc.weight": [8, 6, 1]}, 4),
    "larger": ({"fc.weight": [8, 6]}, 9),
    "nothing left": ({"fc.weight": [8, 6]}, 0),
    "negative": ({"fc.weight": [-8, 6]}, 4),
    "fractional": ({"fc.weight": [8.0, 6]}, 4),
    "true": ({"fc.weight": [True, 6]}, 4),
    "text": ({"fc.weight": "86"}, 4),
    "not there": ({"fc.table": [8, 6]}, 4),
    "huge": ({"fc.weight": [2**62, 2**62]}, 4),
}


@pytest.mark.parametrize(("shapes", "outputs"), SHAPES.values(), ids=SHAPES)
def test_only_tensors_of_the_model_become_smaller(tmp_path: Path, shapes: Any, outputs: int):
    model = Rich()
    before = state(model)
    path = sealed(tmp_path / "m", {"tensors": TENSORS | shapes, "numbers": NUMBERS}, outputs)
    with pytest.raises(ValueError, match=r"^\S*/m ") as caught:
        tl.load(path, into=model)
    assert state(model) == before
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "cut",
    [None, 7, [], "x" * 10**5, {}, {"tensors": {}}, {"tensors": [], "numbers": []}, {"tensors": {}, "numbers": {}}],
)
def test_a_damaged_record_is_refused(tmp_path: Path, cut: Any):
    check_unreadable(sealed(tmp_path / "m", cut))


@pytest.mark.parametrize(
    "number",
    [
        1,
        [],
        [""] * 4,
        ["", [], 8, 4],
        ["", [8], 8, 4],
        ["", ["a", [1]], 8, 4],
        ["", ["a"], 8.5, 4],
        ["", ["a"], 8, None],
    ],
    ids=str,
)
def test_a_damaged_size_is_refused(tmp_path: Path, number: Any):
    check_unreadable(sealed(tmp_path / "m", {"tensors": TENSORS, "numbers": [number]}))


def check_unreadable(path: Path) -> None:
    for use in (lambda: tl.load(path, into=Rich()), lambda: read(path)):
        with pytest.raises(
            ValueError, match=r"m cannot be read: .*(removed units|full shape|recorded size) is "
        ) as caught:
            use()
        assert len(str(caught.value)) < 300 + len(str(path))
