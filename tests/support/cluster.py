"""Scenarios that several processes run together: one launch for a file, one test for a scenario.

The test file is the script that the processes run, so that each scenario stands where its test is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

PATIENCE = 280  # seconds for one launch, which takes about 40 where nothing else runs
WAIT = timedelta(seconds=60)  # of one process for the others: one that failed leaves them waiting
ROOT = str(Path(__file__).parents[2])  # where `tests` is found by the script


class Cluster:
    """The scenarios of one file, by name, and their outcomes.

    Args:
        file: the test file, which calls :meth:`work` when it is run as a script.
        processes: how many run it.
    """

    def __init__(self, file: str, processes: int = 2) -> None:
        self.file, self.processes = file, processes
        self.scenarios: dict[str, Callable[[], None]] = {}
        self._outcomes: dict[str, str] | None = None

    def scenario(self, name: str, *args: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorator: the function with these arguments is a scenario; several may be made of one function."""

        def enter(function: Callable[..., None]) -> Callable[..., None]:
            assert name not in self.scenarios
            self.scenarios[name] = lambda: function(*args)
            return function

        return enter

    def check(self, name: str) -> None:
        """Fail with the error of this scenario, from any process."""
        if self._outcomes is None:
            with tempfile.TemporaryDirectory() as folder:
                log = launch(self.file, self.processes, folder)
                self._outcomes = outcomes(Path(folder), self.processes) | {"log": log}
        wrong = self._outcomes.get(name, f"did not come to its end\n{self._outcomes['log']}")
        assert not wrong, wrong

    def work(self, folder: str) -> None:
        """Run every scenario in a process, and write down the outcomes."""
        dist.init_process_group("gloo", timeout=WAIT)
        with Path(folder, f"{dist.get_rank()}.jsonl").open("w", encoding="utf-8") as file:
            for name, scenario in self.scenarios.items():
                try:
                    scenario()
                    wrong = ""
                except Exception:
                    wrong = f"process {dist.get_rank()}: {traceback.format_exc()}"
                print(json.dumps([name, wrong]), file=file, flush=True)
        dist.destroy_process_group()


def launch(file: str, processes: int, *args: str) -> str:
    """Run the file in this many processes, and return their output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", file]
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [*command, *args],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return f"not done after {PATIENCE} seconds; printed until then: {late.stdout!r}"
    return done.stdout


def outcomes(folder: Path, processes: int) -> dict[str, str]:
    """Return the errors of each scenario that every process finished."""
    each = [
        dict(json.loads(line) for line in (folder / f"{rank}.jsonl").read_text("utf-8").splitlines())
        for rank in range(processes)
        if (folder / f"{rank}.jsonl").exists()
    ]
    ended = set.intersection(*map(set, each)) if len(each) == processes else set()
    failed = {name: wrong for each_one in each for name, wrong in each_one.items() if wrong}
    return {name: "\n".join(filter(None, (one[name] for one in each))) for name in ended} | failed
