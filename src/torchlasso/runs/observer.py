"""Listeners to a run. A run says nothing by itself: the command line listens and prints, a script may listen or not."""

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
    """A listener to a run."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Hear a line of plain text."""

    @abstractmethod
    def training(
        self, name: str, steps: int, done: int, sparsity: Callable[[], float], lam: Callable[[], float]
    ) -> AbstractContextManager[Watch]:
        """Hear that a training of so many steps begins or resumes, and then of each step.

        Args:
            name: of the model in training, such as ``"dense"``.
            steps, done: of the whole training, and of those the ones that are over.
            sparsity, lam: give the share of zeros and λ at the time of the call.
        """

    @abstractmethod
    def epoch(self, name: str, epochs: int, metrics: dict[str, Any]) -> None:
        """Hear that an epoch is over, and of its line in ``metrics.jsonl``."""

    @abstractmethod
    def shrunk(self, epoch: int, left: float) -> None:
        """Hear that the model was made smaller after an epoch, and of the share of its multiplications that is left."""

    @abstractmethod
    def trained(self, summary: Summary) -> None:
        """Hear of the summary of a run and its comparisons."""

    @abstractmethod
    def path(self, points: int) -> AbstractContextManager[Callable[[int, int], Watch]]:
        """Hear that a path begins, then of each point's number and steps, and then of each step."""

    @abstractmethod
    def point(self, point: Point, points: int) -> None:
        """Hear that a point of a path is trained."""

    @abstractmethod
    def chosen(self, points: Sequence[Point], chosen: Point) -> None:
        """Hear which point of a path is chosen."""


class Silent(Observer):
    """A listener that does nothing."""

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

    def chosen(self, points: Sequence[Point], chosen: Point) -> None: ...


def _ignore(step: Step) -> None: ...


SILENT = Silent()
