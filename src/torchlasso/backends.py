"""Backends of joblib that run many trainings: processes of this machine, and a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchlasso._core.extras import require
from torchlasso.startup import leaving_interrupts_here

CLEANED = "ignore:resource_tracker"  # the start of its warnings


@contextmanager
def without_warnings_of_cleaning() -> Iterator[None]:
    """Keep joblib's process that cleans up after an interruption from saying so on the screen."""
    known = os.environ.get("PYTHONWARNINGS")
    with _environment("PYTHONWARNINGS", CLEANED if known is None else f"{known},{CLEANED}"):
        yield


@contextmanager
def on_ray(joblib: Any, jobs: int | None) -> Iterator[None]:
    """Make Ray the backend of joblib; a local cluster is started if there is none, and stopped at the end.

    Its workers stay for all calls of joblib until then.
    """
    ray = require("ray", "ray", "--engine ray")
    own = not ray.is_initialized()
    if own:
        local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": _cores(jobs), "include_dashboard": False}
        with leaving_interrupts_here(), _modules_of_this_process():
            ray.init(log_to_driver=False, logging_level="ERROR", **local)
    workers = _streaming()()
    try:
        with joblib.parallel_config(workers, n_jobs=jobs):
            yield
    finally:
        workers.end()
        if own:
            ray.shutdown()


@contextmanager
def _modules_of_this_process() -> Iterator[None]:
    """Let processes that are started find the modules that this one finds."""
    with _environment("PYTHONPATH", os.pathsep.join(filter(None, sys.path))):
        yield


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Give a variable of the environment another value, which processes that are started have."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _cores(jobs: int | None) -> int:
    return jobs if jobs is not None and jobs > 0 else os.cpu_count() or 1


def _streaming() -> type:
    """Return joblib's backend for Ray with results that are returned as they fall, and with workers that stay.

    That of Ray starts its workers anew in each call of joblib, and each of them imports torch for seconds.
    """
    from ray.util.joblib.ray_backend import RayBackend

    class StreamingRay(RayBackend):
        supports_return_generator = True
        started = size = 0  # the number of workers that was asked for, and that there is

        def configure(self, n_jobs: int = 1, parallel: Any = None, *args: Any, **options: Any) -> int:
            if self._pool is None or self.started != n_jobs:
                self.end()
                self.size = super().configure(n_jobs, parallel, *args, **options)
                self.started = n_jobs
            self.parallel = parallel
            return self.size

        def terminate(self) -> None:  # after each call
            self.reset_batch_stats()
            for name in ("_registry", "_registry_hashable"):  # where the pool keeps the arguments of calls
                getattr(self._pool, name, {}).clear()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            self.end()
            super().abort_everything(ensure_ready)

        def end(self) -> None:
            super().terminate()

    return StreamingRay
