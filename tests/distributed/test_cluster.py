"""A scenario that fails in one process is named, and the scenarios after it run as if it had not been there."""

from pathlib import Path

from tests.support.cluster import run_all

SCRIPT = """
import torch
import torch.distributed as dist
from tests.support.cluster import Cluster

CLUSTER = Cluster()


@CLUSTER.scenario("passes")
@CLUSTER.scenario("passes after an error")
def reduce():
    total = torch.tensor(dist.get_rank() + 1)
    dist.all_reduce(total)
    assert total == 3


@CLUSTER.scenario("fails in one process")
def fail():
    if dist.get_rank() == 1:
        raise ValueError("wrong here")
    dist.barrier()


@CLUSTER.scenario("ends a process")
def end():
    if dist.get_rank() == 1:
        raise SystemExit(0)
"""
NAMES = ["passes", "fails in one process", "passes after an error", "ends a process"]


def test_errors_stay_with_their_scenarios(tmp_path: Path) -> None:
    file = tmp_path / "scenarios_here.py"
    file.write_text(SCRIPT, "utf-8")
    found = run_all([(str(file), name) for name in NAMES], 2, tmp_path / "launches")
    assert [(path, name) for path, name, _ in found] == [(str(file), name) for name in NAMES]
    errors = [wrong for _, _, wrong in found]
    assert errors[0] == errors[2] == ""
    assert "wrong here" in errors[1]
    assert "process 1" in errors[1]
    assert "did not come to its end" in errors[3]
