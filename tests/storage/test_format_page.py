"""The reader of docs/format.md, which needs only numpy, reads saved files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchlasso as tl

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read() -> Callable[[Path], dict[str, Any]]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert "torch" not in re.sub(r"torchlasso\.storage", "", code)
    space: dict[str, Any] = {}
    exec(code, space)
    return space["read"]


def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Module()
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.bool)
    for dtype in (*kinds, torch.int32, torch.int16, torch.int8, torch.uint8):
        for density in (0, 0.002, 0.02, 0.1, 0.3, 0.5, 0.7, 1):
            w = (3 * torch.randn(40, 50)).to(torch.int8 if dtype == torch.uint8 else dtype).to(dtype)
            name = f"{dtype} {density}".replace(".", " ")
            made.register_buffer(name, w.masked_fill(torch.rand(40, 50) >= density, 0))
    made.register_buffer("scalar", torch.tensor(2.5))
    made.register_buffer("empty", torch.ones(3, 0))
    made.first = nn.Linear(50, 50)
    nn.init.sparse_(made.first.weight, 0.9)
    made.second = nn.Linear(50, 50)
    made.second.weight = made.first.weight
    return made


@pytest.mark.parametrize("values", [None, torch.bfloat16, torch.float16])
def test_the_reader_on_the_page_reads_saved_files(
    tmp_path: Path, read: Callable[[Path], dict[str, Any]], values: torch.dtype | None
) -> None:
    tl.save(model(), tmp_path / "m", values=values, metadata={"format": "pt"})
    tl.load(tmp_path / "m", into=(loaded := model()))
    found = read(tmp_path / "m")
    assert found.keys() == loaded.state_dict().keys()
    for name, w in loaded.state_dict().items():
        expected = (w.float() if w.dtype == torch.bfloat16 else w).numpy()
        assert found[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(found[name], expected)


def test_it_notices_damage(tmp_path: Path, read: Callable[[Path], dict[str, Any]]) -> None:
    tl.save(model(), tmp_path / "m")
    content = bytearray((tmp_path / "m").read_bytes())
    content[-5] ^= 4
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path / "m")
