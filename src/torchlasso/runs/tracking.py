"""The trackers of a training: ``--log``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torchlasso._core.text import first_line
from torchlasso.distributed.processes import is_first
from torchlasso.integrations.trackers import Tracked, Tracker, need_tracker, tracker_of
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
    """The trackers of one training. A tracker that fails is left out from then on, and training goes on.

    Args:
        experiment: of the run, with ``log``.
        name: of the training.
        folder: of the training.
        observer: is told if a tracker fails.
    """

    def __init__(self, experiment: Experiment, name: str, folder: RunFolder, observer: Observer) -> None:
        self.experiment, self.name, self.folder, self.observer = experiment, name, folder, observer
        self.trackers: dict[str, Tracker] = {}

    def begin(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Begin, or go on after these epochs.

        Raises:
            ValueError: a tracker cannot be used; the message names it.
        """
        options = self.experiment.options
        names = options.trackers if is_first() else ()
        if not names:
            return
        settings = {
            key: str(value)
            for key, value in asdict(options).items()
            if key != "pretrained" and value not in (None, (), False)
        }
        known = self.folder.read_trackers()
        for name in names:
            training = Tracked(self.name, self.folder.path, settings, known.get(name))
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

    def result(self, summary: Summary) -> None:
        """Record the results of the trained model."""
        scores = {} if summary.test is None else {key: score.value for key, score in summary.test.scores.items()}
        tested = {**scores, **{key: getattr(summary, key) for key in TESTED}}
        figures = {f"test_{key}": value for key, value in tested.items()}
        figures |= {f"final_{key}": getattr(summary, key) for key in SIZES}
        self._each(lambda tracker: tracker.result(summary.epochs, _numbers(figures)))

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


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if key != "epoch" and isinstance(value, int | float)}
