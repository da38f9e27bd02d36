"""The trackers of a training or of a path: ``--log``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torchlasso._core.text import first_line
from torchlasso.distributed.processes import is_first
from torchlasso.integrations.trackers import Tracked, Tracker, need_tracker, tracker_of
from torchlasso.path import Point
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.observer import Observer
from torchlasso.runs.summary import Summary

# the results of a run beside those on the test rows
SIZES = ("sparsity", "nonzero", "parameters", "bytes", "units", "live_units", "inputs", "live_inputs")
TESTED = ("error", "loss", "accuracy", "balanced_error")


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``ValueError`` if the package of a tracker is not installed, before anything is trained."""
    for name in names:
        need_tracker(name)


class Tracking:
    """The trackers of one training or path. A tracker that fails is left out from then on, and training goes on.

    Args:
        experiment: of the run, with ``log``.
        name: of the training.
        folder: of the training.
        observer: is told if a tracker fails.
    """

    def __init__(self, experiment: Experiment, name: str, folder: RunFolder, observer: Observer) -> None:
        self.experiment, self.name, self.folder, self.observer = experiment, name, folder, observer
        self.trackers: dict[str, Tracker] = {}
        self.points = 0  # that are recorded

    def begin(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Begin, or go on after these epochs, or points of a path.

        Raises:
            ValueError: a tracker cannot be used; the message names it.
        """
        options = self.experiment.options
        names = options.trackers if is_first() else ()
        if not names:
            return
        values = {**asdict(options), "pretrained": None}
        path = values.pop("path") or {}
        settings = {key: str(value) for key, value in {**values, **path}.items() if value not in (None, (), False)}
        known = self.folder.read_trackers()
        for name in names:
            unit = "point" if path else "epoch"
            training = Tracked(self.name, self.folder.path, settings, known.get(name), unit)
            try:
                self.trackers[name] = tracker_of(name)(training, [_numbers(line) for line in metrics])
            except Exception as error:  # of any kind: each package has errors of its own
                why = f"--log {name} cannot be used: {first_line(error)}"
                raise ValueError(f"{why}; without it, train on with: --resume --log none") from error
            if (identity := self.trackers[name].identity) is not None:
                known[name] = identity
                self.folder.write_trackers(known)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Record the metrics of an epoch."""
        self._each(lambda tracker: tracker.epoch(line["epoch"], _numbers(line)))

    def begin_path(self, points: Sequence[Point]) -> None:
        """Begin, or go on after these points of a path."""
        self.begin([point_figures(point) for point in points])
        self.points = len(points)

    def point(self, point: Point) -> None:
        """Record a point of a path, unless it is recorded; the dense model has the number 1."""
        if point.index >= self.points:
            self.points = point.index + 1
            self._each(lambda tracker: tracker.epoch(point.index + 1, point_figures(point)))

    def result(self, summary: Summary, number: int | None = None) -> None:
        """Record the results of the trained model: of the last epoch, or of the point of a path with this number."""
        scores = {} if summary.test is None else {key: score.value for key, score in summary.test.scores.items()}
        tested = {**scores, **{key: getattr(summary, key) for key in TESTED}}
        figures = {f"test_{key}": value for key, value in tested.items()}
        figures |= {f"final_{key}": getattr(summary, key) for key in SIZES}
        self._each(lambda tracker: tracker.result(number or summary.epochs, _numbers(figures)))

    def close(self, *, failed: bool) -> None:
        """End the records."""
        self._each(lambda tracker: tracker.close(failed=failed))
        self.trackers.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # of any kind: a server may be gone, and training is worth more
                del self.trackers[name]
                self.observer.say(f"--log {name} failed, and {self.name} goes on without it: {first_line(error)}")


@contextmanager
def tracked(experiment: Experiment, name: str, folder: RunFolder, observer: Observer) -> Iterator[Tracking]:
    """Yield the trackers of a training, which :meth:`Tracking.begin` starts, and close them at the end."""
    tracking = Tracking(experiment, name, folder, observer)
    try:
        yield tracking
    except BaseException:
        tracking.close(failed=True)
        raise
    tracking.close(failed=False)


def point_figures(point: Point) -> dict[str, float]:
    """Return the figures of a point of a path by the names that those of an epoch have."""
    found = {"loss": point.losses[-1] if point.losses else None, "sparsity": point.sparsity, "lam": point.lam}
    if point.validation is not None:
        found |= {f"val_{name}": value for name, value in asdict(point.validation).items()}
    if point.stationarity is not None:
        found |= {f"stationarity_{name}": value for name, value in asdict(point.stationarity).items()}
    more = {"nonzero": point.nonzero, "epochs": point.epochs, "tries": point.tries, "seconds": point.seconds}
    return _numbers({**found, **more})


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if key != "epoch" and isinstance(value, int | float)}
