"""Many trainings at once: in processes of this machine by joblib, or on a Ray cluster by joblib's backend for Ray."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torchlasso._core.arguments import check_whole
from torchlasso._core.extras import require
from torchlasso._core.specs import unknown
from torchlasso._core.threads import in_threads
from torchlasso.backends import on_ray, without_warnings_of_cleaning
from torchlasso.kept_results import kept_calls
from torchlasso.startup import leaving_interrupts_here

JOBLIB, RAY = "joblib", "ray"
ENGINES = (JOBLIB, RAY)
DEATHS = 3  # of workers, one after the other without any result in between, until trainings are given up

_threads: ContextVar[int] = ContextVar("threads of the trainings of estimators", default=1)

K = TypeVar("K")
R = TypeVar("R")


class WorkersDiedError(OSError):
    """A process of an engine died again and again, in the same training."""


@dataclass(frozen=True)
class Engine:
    """Processes that run many trainings.

    Args:
        name: ``"joblib"``: processes of this machine, or the backend of an enclosing :func:`joblib.parallel_config`.
            ``"ray"``: workers of the Ray cluster at ``RAY_ADDRESS``, or of a local one that is started.
        jobs: the number of trainings at once, as in joblib: −1 for one on each core, None for 1 or the number of an
            enclosing :func:`joblib.parallel_config`. With 1, all run in this process.
        threads: the threads of torch in each of them. With the same number, results are the same to the bit whatever
            the number of jobs.

    Raises:
        ValueError: there is no such engine; the number of jobs is 0, of threads below 1.

    Examples:
        >>> with Engine(jobs=1).started() as workers:
        ...     dict(workers.run(pow, range(3), lambda base: (base, 2)))
        {0: 0, 1: 1, 2: 4}
    """

    name: str = JOBLIB
    jobs: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        if self.jobs == 0:
            raise ValueError("jobs must be a number of trainings at once, or -1 for one on each core; got 0")
        check_whole("threads", self.threads)

    def results(
        self, function: Callable[..., R], keys: Sequence[K], arguments: Callable[[K], tuple[Any, ...]]
    ) -> list[R]:
        """Return the results of a function for all keys, in their order; see :meth:`Workers.run`.

        Under :func:`torchlasso.kept_results.keep_results`, each is kept as soon as it is there, and none is made twice.

        >>> Engine(jobs=1).results(pow, [3, 2], lambda base: (base, 2))
        [9, 4]
        """
        called, given = kept_calls(function, arguments)
        with self.started() as workers:
            found = dict(workers.run(called, keys, given))
        return [found[key] for key in keys]

    @contextmanager
    def for_estimators(self) -> Iterator[None]:
        """Let this engine train the models of estimators whose ``n_jobs`` is None.

        Raises:
            ValueError: joblib or Ray is not installed.
        """
        joblib = require("joblib", "sklearn", "several trainings at once")
        elsewhere = self.name == RAY and self.jobs != 1
        token = _threads.set(self.threads)
        try:
            with on_ray(joblib, self.jobs) if elsewhere else joblib.parallel_config(n_jobs=self.jobs):
                yield
        finally:
            _threads.reset(token)

    def check_installed(self) -> None:
        """Raise ``ValueError`` if the engine is not installed; without other processes, none is needed."""
        if self.jobs != 1:
            require("joblib", "sweep", "running several trainings at once (--jobs 1: one by one)")
            if self.name == RAY:
                require("ray", "ray", "--engine ray")

    @contextmanager
    def started(self) -> Iterator[Workers]:
        """Start the workers, and stop them at the end.

        Raises:
            ValueError: joblib or Ray is not installed.
        """
        self.check_installed()
        if self.jobs == 1:
            yield Workers(None, self.threads)
            return
        import joblib

        with ExitStack() as stack:
            stack.enter_context(without_warnings_of_cleaning())
            if self.name == RAY:
                stack.enter_context(on_ray(joblib, self.jobs))
            backend, _ = joblib.parallel.get_active_backend()
            how = "generator_unordered" if backend.supports_return_generator else "list"
            with leaving_interrupts_here():
                parallel = stack.enter_context(joblib.Parallel(n_jobs=self.jobs, return_as=how))
            yield Workers(parallel, self.threads)


def engine_of(n_jobs: int | None) -> Engine:
    """Return the engine of an estimator: joblib, or what :meth:`Engine.for_estimators` or joblib's context gives."""
    return Engine(jobs=n_jobs, threads=_threads.get())


@dataclass(frozen=True)
class Workers:
    """The workers of an engine that was started.

    Attributes:
        parallel: of joblib; None to run everything in this process.
        threads: the threads of torch in each worker.
    """

    parallel: Any
    threads: int

    def run(
        self,
        function: Callable[..., R],
        keys: Iterable[K],
        arguments: Callable[[K], tuple[Any, ...]],
        lost: Callable[[K], R] | None = None,
    ) -> Iterator[tuple[K, R]]:
        """Call a function for each of many keys, and yield the keys and the results as they fall.

        When a worker is killed, everything without a yielded result is run again: what other workers had just finished,
        too. A function that keeps its results in files looks there first. If workers die three times without a result
        in between, the calls are made one by one until it is known which one kills its worker.

        Args:
            function: called in the workers, by the name of its module.
            keys: one for each call, all different.
            arguments: a key ↦ the arguments of its call, made when they are needed.
            lost: the key of a call that kills its worker also when it is the only one ↦ its result; None for an error.

        Raises:
            WorkersDiedError: a call kills its worker also when it is the only one.
        """
        task, waiting = WorkerCall(function, self.threads), dict.fromkeys(keys)
        if self.parallel is None:
            for key in waiting:
                yield task(key, *arguments(key))
            return
        deaths = 0
        while waiting:
            try:
                for key, result in self._fallen(task, list(waiting), arguments):
                    deaths = 0
                    if key in waiting:  # joblib can hand on what was left of the calls before
                        del waiting[key]
                        yield key, result
            except _losses():
                deaths += 1
            if deaths == DEATHS:
                deaths = 0
                for key, result in self._alone(task, list(waiting), arguments, lost):
                    if key in waiting:
                        del waiting[key]
                        yield key, result

    def _alone(
        self,
        task: WorkerCall,
        keys: list[K],
        arguments: Callable[[K], tuple[Any, ...]],
        lost: Callable[[K], R] | None,
    ) -> Iterator[tuple[K, R]]:
        """Make one call after the other, up to one that kills its worker."""
        for key in keys:
            try:
                yield from self._fallen(task, [key], arguments)
            except _losses() as error:
                if lost is None:
                    raise WorkersDiedError(
                        f"a process died {DEATHS + 1} times in the same training, the last time with no other one: the "
                        "system may be short of memory"
                    ) from error
                yield key, lost(key)
                return

    def _fallen(
        self, task: WorkerCall, keys: list[K], arguments: Callable[[K], tuple[Any, ...]]
    ) -> Iterator[tuple[K, Any]]:
        from joblib import delayed

        with leaving_interrupts_here():
            found = self.parallel(delayed(task)(key, *arguments(key)) for key in keys)
        yield from found


@dataclass(frozen=True)
class WorkerCall:
    """A function as a worker calls it: in the folder of the process that started it."""

    function: Callable[..., Any]
    threads: int
    origin: int = field(default_factory=os.getpid)
    folder: str = field(default_factory=os.getcwd)

    def __call__(self, key: K, *arguments: Any) -> tuple[K, Any]:
        """Return the key and the result of the function."""
        if os.getpid() != self.origin:
            self._settle()
        with in_threads(self.threads):
            return key, self.function(*arguments)

    def _settle(self) -> None:
        with suppress(ValueError):  # in a thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
        if Path.cwd() != Path(self.folder):
            os.chdir(self.folder)


def _losses() -> tuple[type[Exception], ...]:
    """Return the errors by which joblib and Ray say that a worker died."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    ray = sys.modules.get("ray")
    names = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
    return (BrokenProcessPool, *(getattr(ray.exceptions, name) for name in names if ray is not None))
