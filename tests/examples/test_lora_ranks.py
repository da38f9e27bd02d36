"""The example of LoRA by rank: fewer ranks are left than there were, and some in each layer."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "lora_ranks.py"


@pytest.mark.slow
def test_it_ends_with_fewer_ranks(capsys):
    left = runpy.run_path(str(EXAMPLE))["main"]()
    assert set(left) == {"0", "2"}
    assert all(0 < ranks < 8 for ranks in left.values())
    assert "step 600: loss" in capsys.readouterr().out
