"""Scenarios that several processes run together: one launch for all files, one test for a scenario.

The processes import the test files, so that each scenario stands where its test is. One program imports all that is
needed, which takes seconds, and the others are forked from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist

from tests.support import programs
from tests.support.kernels import read_headers_once

PATIENCE = 600  # seconds for all scenarios, which take about 80 where nothing else runs
ALONE = 280  # seconds for a launch by itself
GRACE = 10  # seconds that the other processes have after one of them has ended with an error
WAIT = timedelta(seconds=60)  # of one process for the others
QUIET = "import warnings; warnings.simplefilter('ignore')"

Key = tuple[str, str]  # a file and the name of a scenario in it


class Cluster:
    """The scenarios of one file, by name.

    Args:
        processes: how many run it.
    """

    def __init__(self, processes: int = 2) -> None:
        self.processes = processes
        self.scenarios: dict[str, Callable[[], None]] = {}

    def scenario(self, name: str, *args: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorator: the function with these arguments is a scenario; several may be made of one function."""

        def enter(function: Callable[..., None]) -> Callable[..., None]:
            assert name not in self.scenarios
            self.scenarios[name] = lambda: function(*args)
            return function

        return enter


def run_all(scenarios: list[Key], processes: int, folder: Path) -> list[tuple[str, str, str]]:
    """Run all scenarios, and return the error of each with its file and name; it is empty where none came.

    A launch ends at the first error, since the processes may no longer wait for each other in the same place; the
    scenarios that are left are run by another one.
    """
    found: dict[Key, str] = {}
    end = time.monotonic() + PATIENCE
    for number in range(len(scenarios)):
        left = [key for key in scenarios if key not in found]
        if not left or time.monotonic() > end:
            break
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / "scenarios.json").write_text(json.dumps(left), "utf-8")
        code = f"from tests.support.cluster import work_all; work_all({str(place)!r}, {processes})"
        log = launch(code, place, end - time.monotonic())
        new = dict(_outcomes(place, processes))
        found |= new
        unfinished = next((key for key in left if key not in new), None)
        if unfinished and not any(new.values()):
            found[unfinished] = f"did not come to its end\n{log}"
    late = f"not begun within {PATIENCE} seconds, after errors in others"
    return [(*key, found.get(key, late)) for key in scenarios]


def launch(code: str, folder: Path, patience: float = ALONE) -> str:
    """Run code that calls :func:`together`, and return what all processes printed into a folder."""
    environment = {"PATIENCE": str(patience)}
    ended = programs.run(code=f"{QUIET}; {code}", environment=environment, patience=patience + 2 * GRACE)
    (folder / "first.log").write_text(ended.out + ended.err, "utf-8")
    return "\n".join(log.read_text("utf-8") for log in sorted(folder.glob("*.log")))


def together(processes: int, store: Path, function: Callable[..., None], *args: object) -> None:
    """Run a function in processes that are forked from this one and form a group; end them all after an error."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")  # what was imported so far is there
    started = [
        context.Process(target=_member, args=(rank, processes, store, function, args)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    end = time.monotonic() + float(os.environ["PATIENCE"])
    while any(process.is_alive() for process in started) and time.monotonic() < end:
        if any(process.exitcode for process in started):
            end = min(end, time.monotonic() + GRACE)
            break
        time.sleep(0.05)
    for process in started:
        process.join(max(0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _member(rank: int, size: int, store: Path, function: Callable[..., None], args: tuple[object, ...]) -> None:
    log = os.open(store.with_name(f"{store.name}-{rank}.log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group("gloo", f"file://{store}", timeout=WAIT, world_size=size, rank=rank)
    function(*args)
    dist.destroy_process_group()


def work_all(place: str, processes: int) -> None:
    """Run the scenarios of a folder in as many processes."""
    read_headers_once()
    folder = Path(place)
    scenarios = json.loads((folder / "scenarios.json").read_text("utf-8"))
    for path, _ in scenarios:
        _module(path)
    together(processes, folder / "store", _work, folder, scenarios)


def _work(folder: Path, scenarios: list[Key]) -> None:
    """Run scenarios in a process until one fails, and write down their outcomes."""
    with (folder / f"{dist.get_rank()}.jsonl").open("w", encoding="utf-8") as file:
        for path, name in scenarios:
            try:
                _module(path).CLUSTER.scenarios[name]()
                wrong = ""
            except Exception:
                wrong = f"process {dist.get_rank()}: {traceback.format_exc()}"
            print(json.dumps([path, name, wrong]), file=file, flush=True)
            if wrong:
                os._exit(1)  # at once, so that the others notice it where they wait
            dist.barrier()  # the next scenario begins where each process has passed this one


@cache
def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _outcomes(folder: Path, processes: int) -> Iterator[tuple[Key, str]]:
    """Yield the errors of each scenario that every process finished, or that failed in one."""
    files = [folder / f"{rank}.jsonl" for rank in range(processes)]
    found: dict[Key, list[str]] = {}
    for file in filter(Path.exists, files):
        for path, name, wrong in map(json.loads, file.read_text("utf-8").splitlines()):
            found.setdefault((path, name), []).append(wrong)
    for key, errors in found.items():
        if any(errors) or len(errors) == processes:
            yield key, "\n".join(filter(None, errors))
