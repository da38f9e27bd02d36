"""The interface of trackers, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from torchlasso._core.extras import require
from torchlasso._core.registry import Registry
from torchlasso._core.specs import unknown

EpochFigures = Mapping[str, float]
TrackerT = TypeVar("TrackerT", bound="Tracker")

_trackers: Registry[str, type[Tracker]] = Registry("tracker")


@dataclass(frozen=True)
class Tracked:
    """A training, as a tracker gets to know it.

    The epochs of a path are its points: each is recorded once, when it is trained.

    Attributes:
        name: of the training, such as ``"a"``, or ``"a/dense"`` for a comparison.
        folder: of the run, in which a tracker may write a file or a folder of its own.
        settings: the options of the run as text, by name.
        identity: the name that the tracker's server gave to this training when it began; None for a new training.
        unit: the unit that figures are of, ``"epoch"`` or ``"point"``.
    """

    name: str
    folder: Path
    settings: Mapping[str, str]
    identity: str | None = None
    unit: str = "epoch"


class Tracker(ABC):
    """A tool that shows a training while it runs. A new one is a registered class in a file of this package.

    Args:
        training: the training.
        epochs: the figures of the epochs that are trained already, from the first one on. A tracker that has them from
            an earlier process does not get them twice.

    Attributes:
        package: the package to import, and the name of the extra that installs it; "" for none.
    """

    package: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, training: Tracked, epochs: Sequence[EpochFigures]) -> None: ...

    @property
    def identity(self) -> str | None:
        """The name by which a later process goes on with the same training; None if the folder is enough."""
        return None

    @abstractmethod
    def epoch(self, number: int, figures: EpochFigures) -> None:
        """Record the figures of an epoch; the first one has the number 1."""

    @abstractmethod
    def result(self, number: int, figures: EpochFigures) -> None:
        """Record the figures of the trained model, after so many epochs."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """End the record, and say whether training ended early, with an error or by Ctrl-C."""


def register(name: str) -> Callable[[type[TrackerT]], type[TrackerT]]:
    """Register a tracker under the name that ``--log`` gives it.

    Raises:
        ValueError: the name is taken.
    """

    def enter(cls: type[TrackerT]) -> type[TrackerT]:
        _trackers.enter(name, cls)
        return cls

    return enter


def tracker_names() -> tuple[str, ...]:
    """Return the sorted names of the trackers.

    >>> tracker_names()
    ('csv', 'mlflow', 'tensorboard', 'wandb')
    """
    return tuple(sorted(_trackers))


def tracker_of(name: str) -> type[Tracker]:
    """Return the class of a tracker.

    Raises:
        ValueError: there is no tracker of this name.
    """
    if name not in _trackers:
        raise unknown("tracker", name, tracker_names())
    return _trackers[name]


def need_tracker(name: str) -> None:
    """Raise ``ValueError`` if the package of a tracker is not installed; the message has the pip command."""
    package = tracker_of(name).package
    if package:
        require(package, package, f"--log {name}")
