"""The example of a sweep on Ray: a local cluster of two workers has the results of one process."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_sweep.py"


@pytest.mark.slow
def test_it_finds_on_ray_what_one_process_finds(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))  # so that the workers find it
    spec = importlib.util.find_spec("ray_sweep")
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(importlib.sys.modules, "ray_sweep", example)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "ZEROS", (0.8,))
    found = example.main()
    assert found == example.main("joblib", 1)
    assert len(found) == 2
    for (_, zeros), (share, error) in found.items():
        assert share == pytest.approx(zeros, abs=0.02)
        assert error < 0.6
    assert "lr 0.005 is best" in capsys.readouterr().out
