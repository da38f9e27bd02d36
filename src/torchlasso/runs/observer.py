"""Observers of a run. A run prints nothing itself; the command line prints through its observer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torchlasso.path import Point
from torchlasso.runs.summary import Summary
from torchlasso.training.trainer import Step

Watch = Callable[[Step], None]  # called after each training step


class Observer(ABC):
    """An observer of a run: its methods are called as the run proceeds."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Receive a line of plain text."""

    @abstractmethod
    def training(
        self, name: str, steps: int, done: int, sparsity: Callable[[], float], lam: Callable[[], float]
    ) -> AbstractContextManager[Watch]:
        """Return a context for a training that starts or resumes; the function that it yields is called at each step.

        Args:
            name: the name of the model in training, such as ``"dense"``.
            steps, done: the number of steps in total, and of those already done.
            sparsity, lam: functions that return the current share of zeros and the current λ.
        """

    @abstractmethod
    def epoch(self, name: str, epochs: int, metrics: dict[str, Any]) -> None:
        """Receive the metrics of a finished epoch."""

    @abstractmethod
    def shrunk(self, epoch: int, left: float) -> None:
        """Receive the share of multiplications left, after dead units were removed at the end of an epoch."""

    @abstractmethod
    def trained(self, summary: Summary) -> None:
        """Receive the summary of a run and its comparisons."""

    @abstractmethod
    def path(self, points: int) -> AbstractContextManager[Callable[[int, int], Watch]]:
        """Return a context for a path; the function that it yields takes the number and steps of each point."""

    @abstractmethod
    def point(self, point: Point, points: int) -> None:
        """Receive a trained point of a path."""

    @abstractmethod
    def chosen(self, points: Sequence[Point], chosen: Point, summary: Summary) -> None:
        """Receive all points of a path, the chosen one and the summary of its model."""


class Silent(Observer):
    """An observer that does nothing."""

    def say(self, line: str) -> None: ...

    def training(
        self, name: str, steps: int, done: int, sparsity: Callable[[], float], lam: Callable[[], float]
    ) -> AbstractContextManager[Watch]:
        return nullcontext(_ignore)

    def epoch(self, name: str, epochs: int, metrics: dict[str, Any]) -> None: ...

    def shrunk(self, epoch: int, left: float) -> None: ...

    def trained(self, summary: Summary) -> None: ...

    def path(self, points: int) -> AbstractContextManager[Callable[[int, int], Watch]]:
        return nullcontext(lambda index, steps: _ignore)

    def point(self, point: Point, points: int) -> None: ...

    def chosen(self, points: Sequence[Point], chosen: Point, summary: Summary) -> None: ...


def _ignore(step: Step) -> None: ...


SILENT = Silent()
