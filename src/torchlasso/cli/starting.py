"""Start, resume or replace a run: the first step of every command that trains, and its reaction to Ctrl-C."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import typer

from torchlasso._core import files
from torchlasso._core.text import first_line
from torchlasso.cli import screen
from torchlasso.control import TargetSparsity
from torchlasso.distributed.processes import is_first, is_first_to_fail
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.extending import extended
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.keeping import check_keeping
from torchlasso.runs.options import DENSE, Options
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.pretraining import options_from
from torchlasso.runs.rows import RowSplits, read_data, read_data_again
from torchlasso.runs.teacher import outputs_of_teacher
from torchlasso.runs.tracking import check_trackers


@contextmanager
def started(
    context: typer.Context,
    given: dict[str, Any],
    folder: RunFolder,
    *,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    more_epochs: int | None = None,
) -> Iterator[tuple[Experiment, RowSplits]]:
    """Yield the experiment of the given options and its rows: a new one, or the one in the folder.

    With ``as_json``, the summary is printed at the end, and all other output goes to standard error. ``more_epochs``
    adds epochs to a finished run.

    Raises:
        ValueError: the folder already holds a run, or none to resume; the options differ from those of the run; or a
            model cannot be trained with them.
    """
    out = str(folder.path)
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    if more_epochs is not None and not resume:
        raise ValueError(f"--more-epochs trains a finished run on: give --resume --out {out} with it")
    consent = "".join(f" --allow-code {name}" for name in sorted(folder.allowed))
    command = f"torchlasso {context.command.name} --resume --out {shlex.quote(out)}{consent}"
    with resumable(lambda: folder.holds_a_run, command):
        with ExitStack() as lock:
            if resume or overwrite:
                experiment, rows = _taken(context, given, folder, lock, resume=resume, more_epochs=more_epochs)
            else:
                experiment, rows = _begun(given, folder, lock)
            with screen.aside(as_json):
                for line in rows.card.lines():
                    screen.say(line)
                yield experiment, rows
        if as_json and is_first():
            print(files.as_json(folder.read_summary().to_dict()), end="")


@contextmanager
def resumable(is_begun: Callable[[], bool], command: str) -> Iterator[None]:
    """End with code 130 and one line when it is interrupted, which says how to go on with what has begun."""
    try:
        yield
    except KeyboardInterrupt:
        if is_first_to_fail():
            how = f"; resume with: {command}" if is_begun() else ""
            screen.errors.print(f"interrupted{how}", soft_wrap=True)
        raise typer.Exit(130) from None


def _begun(given: dict[str, Any], folder: RunFolder, lock: ExitStack) -> tuple[Experiment, RowSplits]:
    """Start a run in a folder without one; if the experiment cannot be trained, no folder is left behind."""
    if folder.holds_a_run:
        raise ValueError(f"{folder.path} already holds a run; give --resume, --overwrite or another --out")
    if given["data"] is None:
        raise ValueError("--data is missing")
    experiment, rows = _prepare(options_from(given), folder.allowed)
    lock.enter_context(folder.locked())
    if folder.holds_a_run:
        raise ValueError(f"{folder.path} holds a run that another process has just started; give another --out")
    folder.start(experiment)
    return experiment, rows


def _taken(
    context: typer.Context,
    given: dict[str, Any],
    folder: RunFolder,
    lock: ExitStack,
    *,
    resume: bool,
    more_epochs: int | None,
) -> tuple[Experiment, RowSplits]:
    """Resume or replace the run in a folder; start one if there is none."""
    if not folder.holds_a_run:
        if resume and (given["data"] is None or more_epochs is not None):
            raise ValueError(f"{folder.path} holds no run to resume")
        return _begun(given, folder, lock)
    lock.enter_context(folder.locked())
    if folder.is_part:
        raise ValueError(f"{folder.path} is a part of the run in {folder.path.parent}; give that folder instead")
    if not resume:
        return _replaced(given, folder)
    experiment = folder.read_experiment()
    if (experiment.options.path is None) != ("path" not in given):
        command = "train" if experiment.options.path is None else "path"
        raise ValueError(f"{folder.path} holds a run of torchlasso {command}; resume it with torchlasso {command}")
    _refuse_changes_of_run(context, given, experiment.options)
    rows = read_data_again(experiment.options, experiment.inputs)
    if is_given(context, "log") and given["log"] != experiment.options.log:
        experiment = replace(experiment, options=replace(experiment.options, log=given["log"]))
        check_trackers(experiment.options.trackers)
        folder.amend(experiment)
    check_trackers(experiment.options.trackers)
    return experiment if more_epochs is None else extended(experiment, folder, more_epochs), rows


def _replaced(given: dict[str, Any], folder: RunFolder) -> tuple[Experiment, RowSplits]:
    """Replace a run by a new one; the old one stays until the new one is known to be trainable."""
    if given["data"] is None:
        raise ValueError("--data is missing")
    experiment, rows = _prepare(options_from(given), folder.allowed)
    teacher = experiment.options.teacher
    if teacher is not None:
        place = Path(teacher).resolve()
        if folder.path.resolve() in (place, *place.parents):
            raise ValueError(f"--teacher {teacher} is in {folder.path}, which --overwrite replaces; give another --out")
    folder.start(experiment)
    return experiment, rows


def _prepare(options: Options, allowed: Collection[str]) -> tuple[Experiment, RowSplits]:
    """Make the experiment and read its rows; rehearse a step, so that errors come before anything is replaced."""
    check_trackers(options.trackers)
    inputs, rows = read_data(options)
    experiment = Experiment(options, inputs)
    try:
        experiment.trainer(experiment.build_model(), rows.train, weights=rows.weights).trainer.rehearse()
        check_keeping(experiment, rows)
        if options.teacher not in (None, DENSE):
            outputs_of_teacher(options.teacher, allowed, inputs, rows.train[0][:1])
        if options.path is not None:
            if options.path.folds:
                rows.folds(options.path.folds, options.seed)
            if not options.path.lams:
                optimizer = experiment.proximal(experiment.groups(experiment.build_model()))
                TargetSparsity(optimizer, options.path.grid.targets[0], steps=1)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ValueError):
            if options.pretrained is None:
                raise
            shape = "×".join(map(str, inputs.shape))
            raise ValueError(f"model {options.model!r}, for images of {shape}: {error}") from error
        what = f"model {options.model!r}, optimizer {options.optimizer!r}, --lr {options.lr:g}"
        raise ValueError(f"the first step fails with {what}: {first_line(error)}") from error
    return experiment, rows


def _refuse_changes_of_run(context: typer.Context, given: dict[str, Any], options: Options) -> None:
    path = given.get("path") if options.path is not None else None
    new = {key: value for key, value in given.items() if key not in ("path", "log")}
    kept = {key: getattr(options, key) for key in new}
    for each in fields(PathOptions) if path is not None else ():
        new[each.name], kept[each.name] = getattr(path, each.name), getattr(options.path, each.name)
    refuse_changes(context, new, kept, "run")


def refuse_changes(context: typer.Context, given: Mapping[str, Any], kept: Mapping[str, Any], what: str) -> None:
    """Raise ``ValueError`` for an option on the command line with another value than what is resumed has."""
    for key, value in given.items():
        if is_given(context, key) and value != kept.get(key):
            flag = f"--{key.replace('_', '-')}"
            raise ValueError(
                f"{flag} {value} differs from the {what}'s {kept.get(key)}; a resumed {what} keeps its options"
            )


def is_given(context: typer.Context, key: str) -> bool:
    """Return whether an option stands on the command line."""
    source = context.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"
