"""The record of a sweep: its options, its trials, and the one that is chosen, as ``sweep.json`` stores them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torchlasso._core.files import read_json, write_json
from torchlasso.path import Point
from torchlasso.runs import files
from torchlasso.runs.records import parse_record
from torchlasso.runs.sweeping.options import SweepOptions
from torchlasso.training.evaluation import Evaluation

WAITING, PAUSED, DONE, PRUNED, FAILED = "waiting", "paused", "done", "pruned", "failed"
OVER = (DONE, PRUNED, FAILED)
RECORD, PAGE, TRIALS = files.SWEEP, "report.html", files.TRIALS


@dataclass(frozen=True)
class SweepTrial:
    """A trial: a training with values of its own.

    Attributes:
        number: 1, 2, 3, …
        round: the round of suggestions that it belongs to, from 0 on.
        values: its values of the options that are varied.
        state: ``waiting``, ``paused`` between two parts of its training, ``done``, ``pruned`` or ``failed``.
        point: its λ, zeros and figures on the validation rows, at the end or when it was pruned. The nonzero weights
            are those of the whole model, since the models of trials can differ in size.
        error: the reason why it failed.
    """

    number: int
    round: int
    values: dict[str, bool | int | float | str | None]
    state: str = WAITING
    point: Point | None = None
    error: str | None = None

    @property
    def described(self) -> str:
        """The values, as they are given."""
        return "  ".join(f"{name}={shown_value(value)}" for name, value in self.values.items())


def shown_value(value: Any) -> str:
    """Return a value of an option as a text.

    >>> shown_value(0.0031622776601), shown_value(None), shown_value("l1")
    ('0.003162', 'none', 'l1')
    """
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep.

    Attributes:
        options: the options of the sweep.
        given: the options that all trainings have.
        trials: the trials so far, in the order of their numbers.
        chosen: the number of the chosen trial; None before the end.
        test: the figures of the chosen trial on the test rows, which nothing was decided by.
    """

    options: SweepOptions
    given: dict[str, bool | int | float | str | tuple[str, ...] | None]
    trials: tuple[SweepTrial, ...] = ()
    chosen: int | None = None
    test: Evaluation | None = None

    def with_trial(self, trial: SweepTrial) -> SweepRecord:
        """Return the record with another state of a trial."""
        others = tuple(trial if each.number == trial.number else each for each in self.trials)
        return replace(self, trials=others)

    @property
    def done(self) -> list[SweepTrial]:
        """The trials that were trained to their ends."""
        return [trial for trial in self.trials if trial.state == DONE]

    @property
    def frontier(self) -> list[SweepTrial]:
        """The trials with the least validation error of all that have as few weights left, the fewest last."""
        known = [(trial.point.nonzero, trial.point.badness, trial) for trial in self.done if trial.point is not None]
        best = [
            (left, trial)
            for left, error, trial in known
            if error is not None
            and not any(
                other is not trial and n <= left and e is not None and (e < error or (e == error and n < left))
                for n, e, other in known
            )
        ]
        return [trial for _, trial in sorted(best, key=lambda pair: -pair[0])]

    @property
    def choice(self) -> SweepTrial | None:
        """The chosen trial."""
        return next((trial for trial in self.trials if trial.number == self.chosen), None)

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the sweep."""
        write_json(folder / RECORD, asdict(self))


def read_record(folder: Path) -> SweepRecord:
    """Read the record of a sweep.

    Raises:
        ValueError: there is no sweep in the folder, or its record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        raise ValueError(f"{folder} holds no sweep: it has no {RECORD}")
    return parse_record(SweepRecord, read_json(file), str(file))


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial, which is a run."""
    return folder / TRIALS / f"{number:04}"
