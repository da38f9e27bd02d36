"""The blocks that the page on extending shows are complete: penalties act on them, and the command line finds them."""

import re
from pathlib import Path

import pytest
import torch

import torchlasso as tl
from torchlasso.penalties.blocks import base
from torchlasso.runs import choices


@pytest.fixture
def tiles(monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"\n(@dataclass\(frozen=True\)\nclass Tiles.*?)\n\n\n", text, flags=re.DOTALL)
    monkeypatch.setattr(base._REGISTRY, "_known", dict(base._REGISTRY))
    imports = (
        "from dataclasses import dataclass\n"
        "from torchlasso.penalties.blocks import Partition, register\n"
        "from torchlasso.penalties.magnitudes import computed\n"
    )
    space: dict = {"__name__": "extended"}
    exec(compile(f'{imports}\n@register("tiles")\n{code}', "extending.md", "exec", dont_inherit=True), space)
    return space["Tiles"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_prox_shrinks_each_tile_as_a_whole(tiles, dtype):
    w = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    u = tl.L1(over=tiles(n=2)).prox(w, lam=1.0, step=0.9)
    assert u.dtype == dtype
    for i in range(0, 4, 2):
        for j in range(0, 6, 2):
            tile = w[i : i + 2, j : j + 2].double()
            expected = tile * (1 - 0.9 * 2 / tile.norm()).clamp_min(0)  # √|g| is 2
            torch.testing.assert_close(u[i : i + 2, j : j + 2].double(), expected, rtol=1e-2, atol=1e-12)
    assert (u == 0).any()
    assert u.any()


def test_the_command_line_finds_it(tiles):
    assert choices.parse_penalty("mcp:gamma=2", "tiles:n=3") == tl.MCP(gamma=2.0, over=tiles(n=3))
    with pytest.raises(ValueError, match="unknown option 'm'"):
        choices.parse_blocks("tiles:m=3")
