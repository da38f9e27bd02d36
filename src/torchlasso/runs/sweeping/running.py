"""A sweep from beginning to end: trials in rounds, each trained in parts, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torchlasso._core.files import write_text
from torchlasso.engine import Engine, Workers
from torchlasso.path import choose
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.sweeping.page import sweep_page
from torchlasso.runs.sweeping.pruning import SHARES, Standing, pruned
from torchlasso.runs.sweeping.record import FAILED, OVER, PAGE, PRUNED, SweepRecord, SweepTrial, trial_folder
from torchlasso.runs.sweeping.suggesting import suggest
from torchlasso.runs.sweeping.training import figures_at, train_trial
from torchlasso.training.evaluation import Evaluation

KILLED = "its process was killed again and again; the system may be short of memory"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep, the functions that its trials may name, and where lines for the user go."""

    path: Path
    allowed: Collection[str]
    say: Callable[[str], None]
    trained: Callable[[SweepTrial, int], None]


def run_sweep(record: SweepRecord, folder: SweepFolder, engine: Engine) -> SweepRecord:
    """Train everything of a sweep that is not trained yet, choose a trial and write the page.

    The record is written after each part of a training, so that a sweep that is interrupted goes on from there.

    Raises:
        ValueError: all trials failed.
        OSError: a file cannot be written.
    """
    seed = int(record.given.get("seed") or 0)  # type: ignore[arg-type]
    record.write(folder.path)
    with engine.started() as workers:
        while True:
            if all(trial.state in OVER for trial in record.trials):
                record = _with_round(record, seed)
                record.write(folder.path)
            if all(trial.state in OVER for trial in record.trials):
                break
            for changed in _round(record, folder, workers):
                record = changed
                record.write(folder.path)
    return _finished(record, folder)


def _with_round(record: SweepRecord, seed: int) -> SweepRecord:
    """Return the record with the trials of another round; the same if there are enough."""
    number, last = len(record.trials), record.trials[-1].round if record.trials else -1
    new = [
        SweepTrial(number + place, last + 1, values)
        for place, values in enumerate(suggest(record.options, record.trials, seed), 1)
    ]
    return replace(record, trials=(*record.trials, *new))


def _round(record: SweepRecord, folder: SweepFolder, workers: Workers) -> Iterator[SweepRecord]:
    """Train the trials that are not over, and yield the record after each change."""
    shares = () if record.options.keep_all else SHARES
    for share in (*shares, 1.0):
        going = {trial.number: trial for trial in record.trials if trial.state not in OVER}
        arguments, lost = _arguments(going, record, folder, share), partial(_killed, going)
        for _, trial in workers.run(train_trial, going, arguments, lost):
            record = record.with_trial(trial)
            if trial.state in OVER:
                folder.trained(trial, len(record.trials))
            yield record
        if share < 1:
            for trial in _pruned_at(record, folder, share):
                record = record.with_trial(trial)
                folder.trained(trial, len(record.trials))
            yield record


def _killed(trials: Mapping[int, SweepTrial], number: int) -> SweepTrial:
    return replace(trials[number], state=FAILED, error=KILLED)


def _arguments(
    trials: Mapping[int, SweepTrial], record: SweepRecord, folder: SweepFolder, share: float
) -> Callable[[int], tuple[Any, ...]]:
    """Return a function from the number of a trial to the arguments of :func:`train_trial`."""
    path = folder.path.absolute()
    return lambda number: (trials[number], record.given, trial_folder(path, number), folder.allowed, share)


def _pruned_at(record: SweepRecord, folder: SweepFolder, share: float) -> list[SweepTrial]:
    """Return the trials that are pruned after a share of their epochs."""
    reached, standings = {}, {}
    for trial in record.trials:
        run = RunFolder(trial_folder(folder.path, trial.number))
        point = figures_at(trial, run, share) if run.holds_a_run else None
        if point is None or point.badness is None:
            continue
        options = run.read_experiment(()).options
        zeros = point.sparsity if options.sparsity is None else options.sparsity
        reached[trial.number] = point
        standings[trial.number] = Standing(point.badness, zeros, str(options.model))
    going = {trial.number: trial for trial in record.trials if trial.state not in OVER}
    bad = [number for number in pruned(standings) if number in going]
    return [replace(going[number], state=PRUNED, point=reached[number]) for number in bad]


def _finished(record: SweepRecord, folder: SweepFolder) -> SweepRecord:
    points = [trial.point for trial in record.done if trial.point is not None]
    if not points:
        reason = next((trial.error for trial in record.trials if trial.error), "none was trained to its end")
        raise ValueError(f"all {len(record.trials)} trials failed; the first one: {reason}")
    chosen = choose(points, record.options.choose, record.options.tolerance).index
    found = RunFolder(trial_folder(folder.path, chosen)).read_summary()
    test = Evaluation(found.loss, found.accuracy, found.error, found.balanced_error)
    record = replace(record, chosen=chosen, test=test)
    write_text(folder.path / PAGE, sweep_page(record, folder.path.resolve().name))
    record.write(folder.path)
    return record
