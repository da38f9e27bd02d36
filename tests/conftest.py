"""An option for the edit loop: a few cases of each test instead of all. And no test waits for what it does not test."""

from __future__ import annotations

import gc
import importlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import pytest
import torch

from tests.support.kernels import read_headers_once

read_headers_once()
# pytest gives its handlers to loggers that do not propagate, and torch describes each graph while this one has any
logging.getLogger("torch.__trace").propagate = True


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the modules of torch and all that is imported by now, which stays.

    And let it run less often: an export makes a million objects and no cycles, and each run reads all that is alive.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Leave files to the cache of the system: only a power cut shows the difference, and each wait takes milliseconds.

    A test that needs to know when a file is synchronised replaces ``os.fsync`` itself.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_seeds_for_absent_devices() -> Iterator[None]:
    """Let torch forget seeds of devices that are not there: it would keep each, with its stack, for their start."""
    with pytest.MonkeyPatch.context() as patch:
        for device, keeper in (
            (torch.cuda, torch.cuda.random),
            (torch.xpu, torch.xpu.random),
            (torch.mtia, torch.mtia),
        ):
            if not device.is_available():
                patch.setattr(keeper, "_lazy_call", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def unmarked_steps() -> Iterator[None]:
    """Let torch mark no steps of optimizers for its profiler, which nobody uses here: small steps take that long."""
    marks = torch.autograd.profiler.record_function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "__enter__", lambda self: self)
        patch.setattr(marks, "__exit__", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def one_registry() -> Iterator[None]:
    """Let torch read the operators of ONNX once: each export would make the registry of them anew, for a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def operators_listed_once() -> Iterator[None]:
    """Let torch list its operators once, and again when there are more: each decomposition would list them 50 times."""
    from torch._export import utils

    listed, list_them = list[str](), utils._materialize_cpp_cia_ops

    def list_new_ones() -> None:
        names = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        if names != listed:
            list_them()
            listed[:] = names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_materialize_cpp_cia_ops", list_new_ones)
        yield


@pytest.fixture
def forked_workers() -> Iterator[None]:
    """Workers of joblib that are forked from the server of tests/support/programs.py, which has imported all."""
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.backend.context import set_start_method

    importlib.import_module("tests.support.programs")  # it sets the server up

    set_start_method("forkserver", force=True)
    get_reusable_executor(max_workers=1).shutdown(kill_workers=True)  # the next one is made anew
    yield
    set_start_method(None, force=True)
    get_reusable_executor(max_workers=1).shutdown(kill_workers=True)


@pytest.hookimpl(optionalhook=True)  # without xdist nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``--dist loadfile``, give the files whose scenarios are run by one launch to one worker.

    A second worker would wait for the same outcomes instead of doing something else.
    """
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            launched = file.startswith("tests/distributed/test_sharded_") and not file.endswith("_checkpoints.py")
            return "scenarios" if launched else file

    return Together(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--few", type=int, metavar="N", help="run N cases of each test at most, the first and last included"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = config.getoption("--few")
    if most is None:
        return
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    kept = {id(item) for several in cases.values() for item in spread(several, most)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def spread(cases: list[pytest.Item], most: int) -> list[pytest.Item]:
    """Return as many cases, evenly spaced from the first to the last."""
    if len(cases) <= most:
        return cases
    return [cases[round(i * (len(cases) - 1) / max(1, most - 1))] for i in range(most)]
