"""``torchlasso select``: the features of a table that matter, in order."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchlasso._core import files
from torchlasso._core.extras import require
from torchlasso.cli import options, screen
from torchlasso.cli.starting import refuse_changes, resumable
from torchlasso.distributed import processes
from torchlasso.runs.declared import SELECT
from torchlasso.runs.engine_options import EngineOptions
from torchlasso.runs.page.reading import joined_names
from torchlasso.runs.selecting.folder import (
    FEATURES,
    PAGE,
    RECORD,
    check_folder,
    is_begun,
    read_options,
    read_selection,
)
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import Selection

SHOWN, NAMED = 50, 10  # features on the screen, and names of columns that were left out


@options.takes(SelectOptions, EngineOptions)
def select(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder of the selection.")],
    resume: Annotated[bool, typer.Option("--resume", help="Resume the selection in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the selection in the folder.")] = False,
    allow_code: options.AllowCode = None,
    as_json: options.AsJson = False,
    **values: Any,
) -> None:
    """Select the features of a table that matter, with how sure each of them is and what accuracy they keep.

    Example: torchlasso select --data patients.csv --label ill --fdr 0.1 --group person --out selected
    """
    given = options.parsed(SelectOptions, SELECT, values)
    engine, path = EngineOptions(**options.parsed(EngineOptions, SELECT, values)), Path(out)
    if not out:
        raise ValueError("--out must name a folder; got an empty text")
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    if given["data"] is None and not resume:
        raise ValueError("--data is missing")
    if processes.size() > 1:
        raise ValueError("torchlasso select starts its own processes: run it without torchrun")
    allowed = options.allowed(given["data"], by=allow_code)
    chosen = _taken(context, path, given, allowed) if resume else SelectOptions(**given)
    if not resume:
        check_folder(path, overwrite)
    require("sklearn", "sklearn", "selecting features")
    started = engine.started_for(2 * chosen.pairs)
    started.check_installed()
    # not before: the other commands do without scikit-learn, and start a second sooner
    from torchlasso.runs.selecting.running import run_selection

    consent = "".join(f" --allow-code {name}" for name in sorted(allowed))
    command = f"torchlasso select --resume --out {shlex.quote(out)}{consent}"
    with resumable(lambda: is_begun(path), command), screen.aside(as_json):
        selection = read_selection(path) if resume else None
        if selection is None:
            selection = run_selection(chosen, path, started, screen.say, resume=resume)
        _show(selection)
        screen.say(f"{path}: {FEATURES}, {RECORD}, {PAGE}")
    if as_json:
        print(files.as_json(selection.to_dict()), end="")


def _taken(context: typer.Context, path: Path, given: dict[str, Any], allowed: frozenset[str]) -> SelectOptions:
    """Return the options of the selection in the folder, which those on the command line have to agree with."""
    chosen = read_options(path, allowed)
    refuse_changes(context, given, vars(chosen), "selection")
    return chosen


def _show(result: Selection) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    with_q = any(each.q_value is not None for each in result.chosen)
    for head in ("", "feature", "halves", *(["q-value"] if with_q else []), "nearly the same, left out"):
        shown.add_column(head, justify="left" if head in ("feature", "nearly the same, left out") else "right")
    for each in result.chosen[:SHOWN]:
        partners = ", ".join(f"{partner.name} ({partner.correlation:.2f})" for partner in each.partners[:3])
        q_value = [f"{each.q_value:.3g}"] if with_q else []
        shown.add_row(f"{each.rank}", each.name, f"{100 * each.frequency:.0f} %", *q_value, partners)
    screen.console.print()
    screen.console.tabulate(shown)
    if len(result.chosen) > SHOWN:
        screen.say(f"and {len(result.chosen) - SHOWN:,} more, in {FEATURES}")
    for names, what in ((result.constant, "constant"), (result.copies, "copies of others")):
        if names:
            screen.say(f"\nLeft out, since they are {what}: {joined_names(list(names), NAMED)}.")
    screen.say(f"\n{result.verdict}")
