"""``torchlasso sweep``: trials with other values of options, and the choice of one by its validation rows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from torchlasso._core import files
from torchlasso._core.functions import need_consent
from torchlasso._core.locks import held
from torchlasso._core.readable import percent
from torchlasso.cli import options, screen
from torchlasso.cli.starting import is_given, refuse_changes, resumable
from torchlasso.distributed import processes
from torchlasso.runs.declared import SWEEP
from torchlasso.runs.engine_options import EngineOptions
from torchlasso.runs.files import RunFiles
from torchlasso.runs.folder import TRAINING_CODE
from torchlasso.runs.options import Options
from torchlasso.runs.sweeping.axes import parse_axis
from torchlasso.runs.sweeping.checking import check_values
from torchlasso.runs.sweeping.options import SweepOptions
from torchlasso.runs.sweeping.page import quality_of, sentence_of_choice
from torchlasso.runs.sweeping.record import (
    DONE,
    FAILED,
    OVER,
    PAGE,
    PRUNED,
    RECORD,
    TRIALS,
    SweepRecord,
    SweepTrial,
    read_record,
    shown_value,
)
from torchlasso.runs.sweeping.running import SweepFolder, run_sweep

SHOWN = 30  # trials in the table on the screen


@options.takes(Options, SweepOptions, EngineOptions)
def sweep(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder of the sweep.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Option to vary: lr=1e-3,3e-3, a range lr=1e-4..1e-2, or an option of a value, model.width=50,100; "
            "can be repeated."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the sweep in the folder.")] = False,
    allow_code: options.AllowCode = None,
    as_json: options.AsJson = False,
    **values: Any,
) -> None:
    """Train with many values of options, prune bad ones early, and choose one by its validation rows.

    Example: torchlasso sweep --data digits --vary lr=1e-3,3e-3 --vary sparsity=0.9,0.95 --epochs 5 --out runs/w
    """
    if not out:
        raise ValueError("--out must name a folder; got an empty text")
    if processes.size() > 1:
        raise ValueError("torchlasso sweep starts its own processes: run it without torchrun")
    engine = EngineOptions(**options.parsed(EngineOptions, SWEEP, values))
    given, path = options.parsed(Options, SWEEP, values), Path(out)
    wanted = options.parsed(SweepOptions, SWEEP, values) | {"vary": tuple(vary or ())}
    for axis in map(parse_axis, wanted["vary"]):
        if is_given(context, axis.name):
            flag = f"--{axis.name.replace('_', '-')}"
            raise ValueError(f"{flag} and --vary {axis.name} exclude each other: give its values in --vary only")
    varied = [value for axis in map(parse_axis, wanted["vary"]) for value in axis.values if isinstance(value, str)]
    allowed = options.allowed(given["data"], given["model"], given["loss"], *given["augment"], *varied, by=allow_code)
    consent = "".join(f" --allow-code {name}" for name in sorted(allowed))
    command = f"torchlasso sweep --resume --out {shlex.quote(out)}{consent}"
    with resumable(lambda: (path / RECORD).is_file(), command):
        record = _taken(context, path, given, wanted, allowed) if resume else _begun(path, given, wanted)
        trainings = 10**6 if record.options.trials is None else record.options.trials
        started = engine.started_for(trainings)
        started.check_installed()
        path.mkdir(parents=True, exist_ok=True)
        with held(path / ".lock", f"{path} is in use: another sweep writes into it"), screen.aside(as_json):
            record = run_sweep(record, SweepFolder(path, allowed, screen.say, _show), started)
            _show_all(record)
            screen.say(f"{path}: {RECORD}, {PAGE}, {TRIALS}/")
    if as_json:
        print(files.read_text(path / RECORD), end="")


def _begun(path: Path, given: dict[str, Any], wanted: dict[str, Any]) -> SweepRecord:
    """Make the record of a new sweep, whose folder is not there yet."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; --out must name a folder")
    if (path / RECORD).exists():
        raise ValueError(f"{path} already holds a sweep; give --resume or another --out")
    if RunFiles(path).config.exists() or (path / PAGE).exists() or (path / TRIALS).exists():
        raise ValueError(f"{path} holds something else; give another --out")
    if given["data"] is None:
        raise ValueError("--data is missing")
    record = SweepRecord(SweepOptions(**wanted), given)
    check_values(record.options, given)
    return record


def _taken(
    context: typer.Context, path: Path, given: dict[str, Any], wanted: dict[str, Any], allowed: frozenset[str]
) -> SweepRecord:
    """Read the record of a sweep that goes on, with the options that it has."""
    record = read_record(path)
    names = [value for name in TRAINING_CODE for value in _texts(record.given.get(name))]
    names += [str(value) for trial in record.trials for value in trial.values.values()]
    need_consent(path / RECORD, names, allowed)
    kept: dict[str, Any] = {**record.given, **{name: getattr(record.options, name) for name in wanted}}
    refuse_changes(context, {**given, **wanted}, kept, "sweep")
    return record


def _texts(value: Any) -> list[str]:
    return list(value) if isinstance(value, tuple) else [] if value is None else [str(value)]


def _show(trial: SweepTrial, count: int) -> None:
    """Print a line for a trial that is over."""
    parts = [f"trial {trial.number:>{len(str(count))}}/{count}", trial.described]
    if trial.state == FAILED:
        parts.append(f"failed: {trial.error}")
    elif trial.point is not None and trial.point.validation is not None:
        classes = trial.point.validation.error is not None
        parts += [
            f"val {'error' if classes else 'loss'} {quality_of(trial.point.badness, classes)}",
            f"zeros {percent(trial.point.sparsity)}",
            f"pruned after epoch {trial.point.epochs}" if trial.state == PRUNED else f"{trial.point.seconds:.1f} s",
        ]
    screen.say("  ".join(parts))


def _show_all(record: SweepRecord) -> None:
    """Print the table of the trials; of many, the frontier and the chosen one."""
    shown = [trial for trial in record.trials if trial.state in OVER]
    if len(shown) > SHOWN:
        best = {trial.number for trial in record.frontier} | {record.chosen}
        shown = [trial for trial in shown if trial.number in best]
    classes = record.test is not None and record.test.error is not None
    names = [axis.name for axis in record.options.axes]
    rows = []
    for trial in shown:
        point = trial.point if trial.state == DONE else None
        figures = ["–"] * 3
        if point is not None:
            figures = [percent(point.sparsity), f"{point.nonzero:,}", quality_of(point.badness, classes)]
        mark = "→" if trial.number == record.chosen else ""
        state = "" if trial.state == DONE else trial.state
        values = [shown_value(trial.values[name]) for name in names]
        rows.append([f"{mark}{trial.number}", *values, *figures, state])
    screen.console.print()
    screen.console.tabulate(screen.columns(["trial", *names, "zeros", "weights left", "validation", ""], rows))
    screen.say(f"\n{sentence_of_choice(record)}")
