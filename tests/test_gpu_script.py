"""``benchmarks/gpu.py``, which runs everything that needs a GPU: parts that fail or hang do not end the others."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_script", module)
    spec.loader.exec_module(module)
    return module


def test_every_part_is_in_the_table(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def part(name: str, code: str, limit: int = 60) -> Any:
        return script.Part(name, (), ("-c", code), limit)

    parts = (
        part("right", "print('two lines'); print('the last')"),
        part("wrong", "raise SystemExit(3)"),
        part("slow", "import time; print('begun', flush=True); time.sleep(60)", 1),
        script.Part("of a GPU", ("-c", ""), (), 1),
    )
    monkeypatch.setattr(script, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out"), "--rehearse"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    for row in (
        r"\| right \| done \| \d+ \| the last \|",
        r"\| wrong \| failed with exit code 3 \| \d+ \|  \|",
        r"\| slow \| stopped after 1 s \| \d+ \| (begun)? \|",  # a busy machine may not have begun it
        r"\| of a GPU \| left out: it needs a GPU \| \| \|",
    ):
        assert re.search(row, table), row
    assert (tmp_path / "out" / "right.txt").read_text() == "two lines\nthe last\n"


def test_the_parts_fit_into_the_time_and_have_files(script: Any) -> None:
    assert sum(part.limit for part in script.PARTS) <= 60 * script.MINUTES
    for part in script.PARTS:
        assert (SCRIPT.parent.parent / part.command[0]).exists() or part.command[0] == "-m"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_how_to_rehearse(script: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    assert "there is no GPU here; to try the script without one: --rehearse" in capsys.readouterr().err
